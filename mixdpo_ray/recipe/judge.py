"""The judge section of a recipe: who says which answer is better, and what that may cost."""

from __future__ import annotations

from typing import Literal, Self

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
    price: float | None = Field(None, ge=0, description="Highest price, in the currency of answers.judge.http.prices")


class PaidEndpointSettings(EndpointSettings):
    """A server that is asked for verdicts, and what it may cost."""

    model: str = Field(description="What the server calls its model; answers are kept by this name")
    prices: PriceSettings = PriceSettings()
    budget: BudgetSettings = BudgetSettings()

    @model_validator(mode="after")
    def _price_is_known(self) -> Self:
        if self.budget.price is not None and not (self.prices.input or self.prices.output):
            raise ValueError("budget.price needs the prices of a million tokens: give prices.input and prices.output")
        return self


class JudgeSettings(Settings):
    """A server, a model of this cluster's, or the rule that makes a playground's true quality known."""

    engine: Literal["http", "hf", "playground"] = Field(
        "http", description="http: a server or an API; hf: a model on this cluster; playground: its true quality"
    )
    http: PaidEndpointSettings | None = Field(None, description="The server, its model and its limits (http)")
    model: str | None = Field(None, description="A model's folder or Hub name (hf)")
    revision: str | None = Field(None, description="Commit or tag of answers.judge.model on the Hub (hf)")
    batch_size: int = Field(8, ge=1, description="Questions answered at once by each copy of the model (hf)")
    workers: int | None = Field(
        None, ge=1, description="Copies of the model (hf); cluster.reference_workers, or as many as training workers"
    )

    @model_validator(mode="after")
    def _the_engine_has_its_model(self) -> Self:
        if self.engine == "http" and self.http is None:
            raise ValueError("engine http needs a server: give http: {url: ..., model: ...}, or another engine")
        if self.engine == "hf" and self.model is None:
            raise ValueError("engine hf needs a model: give its folder or Hub name")
        return self
