"""How many requests begin in a minute, how many are under way, and until when none may begin."""

from __future__ import annotations

import asyncio
import random
import time

MINUTE = 60.0
SPARE = 1.02  # requests need unequal times to arrive: a minute at the server holds no more than it allows


class RateLimit:
    """Spreads what begins evenly: servers that allow 60 a minute often mean one a second."""

    def __init__(self, each_minute: int | None):
        self._seconds = MINUTE * SPARE / each_minute if each_minute else 0.0
        self._next = 0.0

    async def begin(self, amount: int = 1) -> None:
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * self._seconds
        if start > now:
            await asyncio.sleep(start - now)

    def give_back(self, amount: int) -> None:
        """What was expected and did not come; what came beyond it is negative."""
        self._next -= amount * self._seconds


class NarrowingGate:
    """Lets so many in at a time: half as many after a refusal, and one more with every round of answers."""

    def __init__(self, most: int):
        self.most, self.width, self.inside = most, float(most), 0
        self._narrowed = -1.0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.inside < int(self.width))
            self.inside += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self.inside -= 1
            self._changed.notify_all()

    def narrow(self, began: float) -> None:
        """`began`: the refused request; one that was under way at the last refusal tells nothing new."""
        if began >= self._narrowed:
            self.width, self._narrowed = max(1.0, self.width / 2), time.monotonic()

    def widen(self) -> None:
        self.width = min(float(self.most), self.width + 1 / self.width)


class Pause:
    """Holds all requests back while the server asks for it."""

    def __init__(self) -> None:
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def extend(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    async def over(self) -> None:
        """Not everybody at the same moment."""
        while left := self.seconds_left:
            await asyncio.sleep(left + random.uniform(0, min(1.0, left)))
