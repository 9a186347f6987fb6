"""One request, and what came of it. No exception of the HTTP library leaves this file: those carry the headers."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from dataclasses import dataclass

import aiohttp

from mixdpo_ray.judging.key import EndpointKey
from mixdpo_ray.judging.question import RequestBody
from mixdpo_ray.judging.reply import ChatReply, read_reply
from mixdpo_ray.recipe.endpoint import EndpointSettings

NO_REPLY = 0  # the status where no whole answer came: a timeout, a reset, JSON that was cut
TOLD_CHARACTERS = 200  # of what a server says


@dataclass(frozen=True)
class Attempt:
    status: int
    reply: ChatReply | None = None
    reason: str = ""
    retry_after: float | None = None
    reached: bool = True  # a server, which may want to be paid


async def attempt(
    session: aiohttp.ClientSession, settings: EndpointSettings, key: EndpointKey, body: RequestBody
) -> Attempt:
    address = f"{settings.url}/chat/completions"
    try:
        async with session.post(address, json=body, headers=key.headers, allow_redirects=False) as response:
            status, text = response.status, key.hide(await response.text("utf-8", "replace"))
            retry_after = _seconds(response.headers.get("Retry-After"))
            reply = read_reply(json.loads(text)) if status == 200 else None
    except TimeoutError:
        return Attempt(NO_REPLY, reason=f"no answer within {settings.timeout_seconds:g} s")
    except aiohttp.ClientConnectorError as error:
        return Attempt(NO_REPLY, reason=_one_line(key.hide(f"{error}")), reached=False)
    except (aiohttp.ClientError, OSError) as error:
        return Attempt(NO_REPLY, reason=_one_line(key.hide(f"{type(error).__name__}: {error}")))
    except ValueError:
        return Attempt(NO_REPLY, reason="an answer that is no JSON")
    if status == 200:
        return Attempt(status, reply) if reply else Attempt(NO_REPLY, reason=f"no answer in {_one_line(text)}")
    return Attempt(status, None, f"HTTP {status}: {_one_line(text)}", retry_after)


def new_session(settings: EndpointSettings) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        connector=aiohttp.TCPConnector(limit=settings.at_once),
    )


async def close_session(session: aiohttp.ClientSession) -> None:
    await session.close()
    await asyncio.sleep(0)  # its connections are told in the next turn of the loop


def _one_line(text: str) -> str:
    return " ".join(text.split())[:TOLD_CHARACTERS]


def _seconds(retry_after: str | None) -> float | None:
    """The header holds seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().replace(".", "", 1).isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
