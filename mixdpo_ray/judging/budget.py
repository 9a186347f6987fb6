"""What calls cost, and a budget that they cannot exceed: each reserves the most that it can cost before it begins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging.question import RequestBody, likely_input_tokens, most_input_tokens, most_output_tokens
from mixdpo_ray.recipe.judge import BudgetSettings, PriceSettings

MILLION = 1_000_000


@dataclass(frozen=True)
class Cost:
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def at_most(cls, body: RequestBody) -> Self:
        return cls(1, most_input_tokens(body), most_output_tokens(body))

    @classmethod
    def expected(cls, body: RequestBody) -> Self:
        """An answer as long as it may be, and a question of English."""
        return cls(1, likely_input_tokens(body), most_output_tokens(body))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def price(self, prices: PriceSettings) -> float:
        return (self.input_tokens * prices.input + self.output_tokens * prices.output) / MILLION

    def __add__(self, other: Cost) -> Cost:
        calls, read = self.calls + other.calls, self.input_tokens + other.input_tokens
        return Cost(calls, read, self.output_tokens + other.output_tokens)

    def __neg__(self) -> Cost:
        return Cost(-self.calls, -self.input_tokens, -self.output_tokens)

    def describe(self, prices: PriceSettings) -> str:
        price = self.price(prices)
        told = f", price {price:,.4g}" if price else ""
        return f"{self.calls:,} calls, {self.input_tokens:,} tokens read and {self.output_tokens:,} written{told}"


NOTHING = Cost()


class Budget:
    def __init__(self, settings: BudgetSettings | None = None, prices: PriceSettings | None = None):
        """Refuses nothing without settings."""
        self.settings, self.prices = settings or BudgetSettings(), prices or PriceSettings()
        self.spent = self.reserved = NOTHING
        self._changed = asyncio.Condition()
        self._exhausted = ""

    def lacks(self, more: Cost) -> str:
        """The limit that so much more would exceed."""
        total, most = self.spent + self.reserved + more, self.settings
        if most.calls is not None and total.calls > most.calls:
            return f"calls ({most.calls:,})"
        if most.tokens is not None and total.tokens > most.tokens:
            return f"tokens ({most.tokens:,})"
        if most.price is not None and total.price(self.prices) > most.price:
            return f"price ({most.price:g})"
        return ""

    async def reserve(self, most: Cost) -> None:
        """Wait for what is under way to cost less than it may; an error where nothing is, and no more is left."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._exhausted or not self.lacks(most) or not self.reserved.calls)
            self._exhausted = self._exhausted or self.lacks(most)
            if self._exhausted:
                self._changed.notify_all()
                raise EndpointError(
                    f"budget.{self._exhausted} does not allow another call after {self.spent.describe(self.prices)}; "
                    "raise it and repeat: what was answered is kept and costs nothing"
                )
            self.reserved += most

    async def settle(self, most: Cost, actual: Cost) -> None:
        async with self._changed:
            self.reserved += -most
            self.spent += actual
            self._changed.notify_all()
