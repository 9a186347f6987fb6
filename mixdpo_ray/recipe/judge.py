"""The judge section of a recipe: a model that is asked over HTTP, what it may cost, and what its tokens cost."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mixdpo_ray.recipe.endpoint import EndpointSettings
from mixdpo_ray.settings import Settings


class PriceSettings(Settings):
    """Prices of a million tokens, in any currency."""

    input: float = Field(0, ge=0, description="Of what the judge reads")
    output: float = Field(0, ge=0, description="Of what the judge writes")


class BudgetSettings(Settings):
    """What one job may spend; questions that were answered before are free."""

    calls: int | None = Field(None, ge=0, description="Most requests, repeated ones among them")
    tokens: int | None = Field(None, ge=0, description="Most tokens, read and written")
    price: float | None = Field(None, ge=0, description="Highest price, in the currency of judge.prices")


class JudgeSettings(EndpointSettings):
    model: str = Field(description="What the server calls its model; answers are kept by this name")
    prices: PriceSettings = PriceSettings()
    budget: BudgetSettings = BudgetSettings()

    @model_validator(mode="after")
    def _price_is_known(self) -> Self:
        if self.budget.price is not None and not (self.prices.input or self.prices.output):
            raise ValueError("budget.price needs the prices of a million tokens: give prices.input and prices.output")
        return self
