"""Questions to a server that speaks OpenAI's protocol for chats, many at a time, by one event loop.

A busy or failing server is asked again: after the time that it names (Retry-After), else after a random time below a
bound that doubles, so that questions that failed together do not come back together. After "too many requests" half as
many wait at a time, and with every answer a few more. What the server holds against one question (400, 413, 422)
concerns that one; what it holds against all (401, 403, 404) stops the job.

The key is read here, on the node where questions are asked from, by the name of its variable or file. No exception of
the HTTP library leaves this module: those carry the request, and with it the key.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.sample import HttpSettings

AGAIN = (408, 409, 429)  # and 500 to 599
OF_ONE_QUESTION = (400, 413, 422)
TOO_MANY_REQUESTS = 429
LONGEST_PAUSE = 60.0
LOST_IN_A_ROW = 3  # questions that nobody answered, however often they were asked: then nobody will
SAID_CHARACTERS = 200  # characters of what a server says


@dataclass(frozen=True)
class ServerAnswer:
    """What came of a question: the server's JSON, or why there is none."""

    content: dict[str, Any] | None
    reason: str = ""


@dataclass(frozen=True)
class _Reply:
    """One attempt: 0 is a connection that failed."""

    status: int
    content: dict[str, Any] | None
    reason: str
    retry_after: float | None = None


class ChatClient:
    def __init__(self, settings: HttpSettings):
        self.settings = settings
        self._headers = _authorisation(settings)
        self._gate = _Gate(settings.at_once)
        self._lost = 0
        self._session: Any = None

    async def ask(self, body: dict[str, Any]) -> ServerAnswer:
        reply = _Reply(0, None, "it was never asked")
        for attempt in range(self.settings.tries):
            async with self._gate:
                reply = await self._attempt(body)
            if reply.content is not None:
                self._lost = 0
                self._gate.widen()
                return ServerAnswer(reply.content)
            if reply.status in OF_ONE_QUESTION:
                return ServerAnswer(None, reply.reason)
            if reply.status and reply.status not in AGAIN and reply.status < 500 and reply.status != 200:
                raise ResourceError(f"{self.settings.url}: {reply.reason}; {_remedy_of(reply.status)}")
            if reply.status == TOO_MANY_REQUESTS:
                self._gate.narrow()
            if attempt + 1 < self.settings.tries:
                await asyncio.sleep(pause(attempt, reply.retry_after))
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW:
            raise ResourceError(
                f"{self.settings.url} has answered none of {LOST_IN_A_ROW} questions in a row, each asked "
                f"{self.settings.tries} times: {reply.reason}; is the server there? Repeat: what it answered is kept"
            )
        return ServerAnswer(None, reply.reason)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _attempt(self, body: dict[str, Any]) -> _Reply:
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self.settings.timeout_seconds)
            connector = aiohttp.TCPConnector(limit=self.settings.at_once)
            self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers, connector=connector)
        address = f"{self.settings.url}/chat/completions"
        try:
            async with self._session.post(address, json=body, allow_redirects=False) as response:
                text = await response.text(errors="replace")
                status, retry_after = response.status, _seconds(response.headers.get("Retry-After"))
                content = await response.json(content_type=None) if status == 200 else None
        except TimeoutError:
            return _Reply(0, None, f"no answer within {self.settings.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Reply(0, None, self._without_key(f"{type(error).__name__}: {error}"))
        except ValueError:  # JSON that was cut
            return _Reply(200, None, "an answer that is no JSON")
        if status != 200:
            return _Reply(status, None, self._without_key(f"HTTP {status}: {text}"), retry_after)
        whole = isinstance(content, dict) and bool(content.get("choices"))
        return _Reply(status, content if whole else None, "" if whole else "an answer without choices")

    def _without_key(self, text: str) -> str:
        """One line; servers quote what they were sent."""
        for secret in self._headers.values():
            text = text.replace(secret, "(key)").replace(secret.removeprefix("Bearer "), "(key)")
        return " ".join(text.split())[:SAID_CHARACTERS]


class _Gate:
    """Lets so many in at a time: fewer after a refusal, and one more with every round of answers."""

    def __init__(self, most: int):
        self.most, self.width, self.inside = most, float(most), 0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.inside < int(self.width))
            self.inside += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self.inside -= 1
            self._changed.notify_all()

    def narrow(self) -> None:
        self.width = max(1.0, self.width / 2)

    def widen(self) -> None:
        self.width = min(float(self.most), self.width + 1 / self.width)


def pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next attempt: full jitter, behind the time that the server asks for."""
    if retry_after is not None:
        return retry_after + random.uniform(0, 1)
    return random.uniform(0, min(LONGEST_PAUSE, 2.0**attempt))


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After is a number of seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().replace(".", "", 1).isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _authorisation(settings: HttpSettings) -> dict[str, str]:
    key = None
    if settings.key_variable:
        key = os.environ.get(settings.key_variable)
        if not key:
            raise ResourceError(
                f"key_variable {settings.key_variable} is not set on {os.uname().nodename}, from where the server is "
                "asked: set it before Ray starts there, or name a file by key_file"
            )
    if settings.key_file:
        try:
            key = Path(settings.key_file).expanduser().read_text().strip()
        except OSError as error:
            reason = f"{error.strerror} on {os.uname().nodename}, from where the server is asked"
            raise ResourceError(f"key_file {settings.key_file}: {reason}") from None
    return {"Authorization": f"Bearer {key}"} if key else {}


def _remedy_of(status: int) -> str:
    if status in (401, 403):
        return "name a key that it takes, by key_variable or key_file"
    return "correct the address or the name of the model" if status == 404 else "correct the address"
