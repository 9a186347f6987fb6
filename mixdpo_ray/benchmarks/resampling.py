"""Scores with intervals: all is computed anew from prompts drawn with replacement, each with all its games.

Battles of one prompt are not independent, hence prompts are drawn and not battles. A drawn sample is a vector of
counts, how often each prompt is in it, so that a score is a function of counts: a ratio of sums, or a fit with
weights. Two arms are compared under the same draws, prompt by prompt. The generator is its own, seeded: nothing
global moves an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.intervals import CONFIDENCE, Estimate, wilson

Vector = NDArray[np.float64]
RESAMPLES = 2000
ALIKE = 1e-9  # apart by less, drawn scores differ in their last bits alone


@dataclass(frozen=True)
class BenchmarkScore:
    value: float
    low: float  # the 95 % interval
    high: float
    error: float  # the standard error
    prompts: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Statistic(Protocol):
    """A score as a function of how often each prompt counts."""

    @property
    def items(self) -> Sequence[str]:
        """The prompts, each once and sorted."""

    @property
    def standard_error(self) -> float | None:
        """The closed form, where there is one."""

    @property
    def percent(self) -> bool:
        """Whether it lies between 0 and 100, as a mean of shares does."""

    def value(self, counts: Vector) -> float: ...


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over prompts: win rates, mean ratings, lengths, flips. Prompts without weight are left out."""

    items: Sequence[str]
    sums: Vector  # [prompts]
    weights: Vector  # [prompts], above 0
    percent: bool = True

    @classmethod
    def of(cls, parts: Mapping[str, tuple[float, float]], *, percent: bool = True) -> Self:
        """The ratio of what is given by item: the summed value, and its weight."""
        items = sorted(item for item, (_, weight) in parts.items() if weight)
        if not items:
            raise EvaluationError("no prompt has a verdict to be counted; judge some first")
        sums, weights = np.array([parts[item] for item in items], dtype=np.float64).T
        return cls(tuple(items), sums, weights, percent)

    @classmethod
    def mean(cls, values: Mapping[str, float], *, percent: bool = True) -> Self:
        return cls.of({item: (value, 1.0) for item, value in values.items()}, percent=percent)

    def value(self, counts: Vector) -> float:
        weight = float(counts @ self.weights)
        return (100 if self.percent else 1) * float(counts @ self.sums) / weight if weight else math.nan

    @property
    def standard_error(self) -> float | None:
        """The usual sd / sqrt(n) where all prompts weigh the same."""
        count = len(self.items)
        if count < 2:
            return None
        rest = self.sums - self.sums.sum() / self.weights.sum() * self.weights
        error = math.sqrt(count / (count - 1) * float(rest @ rest)) / float(self.weights.sum())
        return (100 if self.percent else 1) * error


def with_interval(statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES) -> BenchmarkScore:
    """The score of all prompts, and where 95 % of those of drawn ones lie."""
    count = len(statistic.items)
    value = statistic.value(np.ones(count))
    low, high, spread = _spread(statistic.value, count, seed, resamples)
    if high - low < ALIKE and statistic.percent:  # nothing but wins: still not certain
        low, high = (100 * end for end in wilson(value / 100, count))
    elif count < 2:  # one number says nothing of others
        low, high = -math.inf, math.inf
    return BenchmarkScore(value, low, high, statistic.standard_error or spread, count)


def difference(one: Statistic, other: Statistic, *, seed: int = 0, resamples: int = RESAMPLES) -> BenchmarkScore:
    """One minus the other, both of the same drawn prompts, so that prompts that are easy for both do not blur it."""
    items = sorted({*one.items, *other.items})
    position = {item: index for index, item in enumerate(items)}
    mine, theirs = (np.array([position[item] for item in each.items]) for each in (one, other))

    def apart(counts: Vector) -> float:
        return one.value(counts[mine]) - other.value(counts[theirs])

    value = apart(np.ones(len(items)))
    low, high, spread = _spread(apart, len(items), seed, resamples)
    if high - low < ALIKE and one.percent:  # alike on every prompt: still not certain
        half = 100 * Estimate.crossed(np.full((1, len(items)), value / 100), "difference of shares").half
        low, high = value - half, value + half
    elif len(items) < 2:
        low, high = -math.inf, math.inf
    return BenchmarkScore(value, low, high, spread, len(items))


def _spread(value: Callable[[Vector], float], prompts: int, seed: int, resamples: int) -> tuple[float, float, float]:
    """Both ends of the 95 % interval and the standard deviation of what is drawn."""
    draws = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    values = np.array([value(counts) for counts in draws.astype(np.float64)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high), float(np.nanstd(values, ddof=1))
