"""BeeS, the dual margin: two margins as probabilities, joined as independent witnesses."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs

Bounds = tuple[float, float]


class BeeS(Formula):
    """Two margins clipped to bounds and scaled to [0, 1], joined by p1 p2 / (p1 p2 + (1 - p1)(1 - p2))."""

    needs: ClassVar[str] = "two other metrics"
    experimental: ClassVar[bool] = True

    external: str = Field("reward_margin", description="The metric that is the external margin")
    implicit: str = Field("implicit_margin", description="The metric that is the model's own margin")
    external_bounds: Bounds | None = Field(None, description="[lowest, highest]; by default quantiles of the data")
    implicit_bounds: Bounds | None = Field(None, description="[lowest, highest]; by default quantiles of the data")
    quantiles: Bounds = Field((0.05, 0.95), description="Where bounds lie that are not given")

    def others(self) -> tuple[str, ...]:
        return (self.external, self.implicit)

    def values(self, facts: MetricInputs) -> Column:
        votes = [
            vote(margin, bounds or quantile_bounds(margin[facts.train], self.quantiles))
            for margin, bounds in (
                (facts.metrics[self.external], self.external_bounds),
                (facts.metrics[self.implicit], self.implicit_bounds),
            )
        ]
        return joined(*votes)


def quantile_bounds(margin: Column, quantiles: Bounds) -> Bounds:
    low, high = np.quantile(margin, quantiles)
    return float(low), float(high)


def vote(margin: Column, bounds: Bounds) -> Column:
    """0 at the lower bound and below, 1 at the upper one and above; no opinion where all margins are the same."""
    low, high = bounds
    return (np.clip(margin, low, high) - low) / (high - low) if high > low else np.full_like(margin, 0.5)


def joined(one: Column, other: Column) -> Column:
    """A vote of 0 decides; where 1 meets 0 the formula is 0/0, and 0 counts."""
    yes, no = one * other, (1 - one) * (1 - other)
    either: NDArray[np.bool_] = (yes + no) > 0
    return np.where(either, yes / np.where(either, yes + no, 1.0), 0.0)
