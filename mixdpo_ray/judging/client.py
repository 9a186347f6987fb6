"""Questions to one server, by one event loop: asked again where that helps, within its limits and a budget.

A busy or failing server is asked again: not before the time that it names (Retry-After), and after a random part of a
bound that doubles, so that questions that failed together do not come back together. After "too many requests" half as
many are under way. What it holds against one question (400, 413, 422) concerns that one alone; what it holds against
all (401, 403, 404 and the like) stops the job. Every attempt is in the bill: at its most where it may have been
answered and nobody knows, and as a call without tokens where it was refused.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Self

import aiohttp

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging.attempt import NO_REPLY, Attempt, attempt, close_session, new_session
from mixdpo_ray.judging.budget import Budget, Cost
from mixdpo_ray.judging.key import EndpointKey
from mixdpo_ray.judging.pacing import NarrowingGate, Pause, RateLimit
from mixdpo_ray.judging.question import RequestBody
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.recipe.endpoint import EndpointSettings
from mixdpo_ray.wording import duration_text

BUSY = 429
ASK_AGAIN = (NO_REPLY, 408, 409, BUSY)  # and 500 to 599
OF_ONE_ROW = (400, 413, 422)
NO_MONEY = "insufficient_quota"  # what OpenAI's 429 means that no waiting ends
LONGEST_BACK_OFF = 60.0
LONGEST_WAIT = 600.0  # a server that says to come back later than that is out for today
GIVEN_UP_IN_A_ROW = 3  # questions that failed however often they were asked: then no other will do better


class EndpointClient:
    def __init__(self, settings: EndpointSettings, budget: Budget | None = None):
        """Raises an error where the key is not there."""
        self.settings, self.budget = settings, budget or Budget()
        self.pause = Pause()
        self._key = EndpointKey.read(settings)
        self._gate = NarrowingGate(settings.at_once)
        self._requests, self._tokens = RateLimit(settings.requests_per_minute), RateLimit(settings.tokens_per_minute)
        self._given_up = 0
        self._stopped = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await close_session(self._session)

    async def ask(self, body: RequestBody) -> ChatReply:
        """The answer, or a failure that concerns this question alone."""
        last = Attempt(NO_REPLY, reason="it was never asked")
        for number in range(self.settings.tries):
            if number:
                await asyncio.sleep(back_off(number - 1, last.retry_after))
            last = await self._attempt(body)
            if last.reply:
                self._given_up = 0
                return last.reply
            if last.status in OF_ONE_ROW:
                return ChatReply.failed(last.reason)
            if not is_worth_another(last):
                self.stop(f"{self.settings.url}: {last.reason}; {_remedy_of(last)}")
                self._refuse_if_stopped()
        self._given_up += 1
        if self._given_up >= GIVEN_UP_IN_A_ROW:
            self.stop(
                f"{self.settings.url} has answered none of {GIVEN_UP_IN_A_ROW} questions in a row, each asked "
                f"{self.settings.tries} times: {last.reason}; is the server there? Repeat: what it answered is kept"
            )
            self._refuse_if_stopped()
        return ChatReply.failed(last.reason)

    async def _attempt(self, body: RequestBody) -> Attempt:
        """One attempt, when the server, its limits and the budget allow it."""
        most, expected = Cost.at_most(body), Cost.expected(body)
        async with self._gate:
            await self._turn(expected)
            await self.budget.reserve(most)
            actual = most  # of a request that is given up on the way
            try:
                self._session = self._session or new_session(self.settings)
                began = time.monotonic()
                made = await attempt(self._session, self.settings, self._key, body)
                actual = _cost_of(made, most)
            finally:
                await self.budget.settle(most, actual)
        self._tokens.give_back(expected.tokens - actual.tokens)
        if made.reply:
            self._gate.widen()
        if made.status == BUSY:
            self._gate.narrow(began)
        if made.retry_after and is_worth_another(made):
            self.pause.extend(made.retry_after)
        return made

    async def _turn(self, expected: Cost) -> None:
        while True:
            self._refuse_if_stopped()
            await self.pause.over()
            await self._requests.begin()
            await self._tokens.begin(expected.tokens)
            if not self.pause.seconds_left:
                self._refuse_if_stopped()
                return

    def stop(self, reason: str) -> None:
        """Let what is under way end, and ask no more."""
        self._stopped = self._stopped or reason

    def _refuse_if_stopped(self) -> None:
        """What stops one question stops all others."""
        if self._stopped:
            raise EndpointError(self._stopped)


def is_worth_another(made: Attempt) -> bool:
    if (made.retry_after or 0) > LONGEST_WAIT or (made.status == BUSY and NO_MONEY in made.reason):
        return False
    return made.status in ASK_AGAIN or 500 <= made.status < 600


def back_off(failures: int, retry_after: float | None) -> float:
    """Seconds before the next attempt: full jitter, behind the time that the server asks for."""
    return (retry_after or 0.0) + random.uniform(0, min(LONGEST_BACK_OFF, 2.0**failures))


def _cost_of(made: Attempt, most: Cost) -> Cost:
    if made.reply:
        read, written = made.reply.input_tokens, made.reply.output_tokens
        return Cost(1, most.input_tokens if read is None else read, most.output_tokens if written is None else written)
    return most if made.status == NO_REPLY and made.reached else Cost(1)


def _remedy_of(made: Attempt) -> str:
    if made.status in (401, 403):
        return "name a key that it takes, by key_variable or key_file"
    if made.status in ASK_AGAIN or made.status >= 500:
        later = f"in {duration_text(made.retry_after)}" if made.retry_after else "when the account has money"
        return f"repeat {later}: what was answered is kept"
    return "correct the address or the name of the model" if made.status == 404 else "correct the address"
