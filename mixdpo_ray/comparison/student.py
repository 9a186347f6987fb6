"""Means and their 95 % intervals over a few seeds, by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    mean: float
    half: float  # width of the interval to either side; infinite with one seed
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """NaN of nothing."""
        count = len(values)
        if not count:
            return cls(math.nan, math.inf, 0)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, math.inf, 1)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
        return cls(mean, t_quantile((1 + CONFIDENCE) / 2, count - 1) * deviation / math.sqrt(count), count)

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t lies below with this probability, which is above a half."""
    low, high = 0.0, 1.0
    while t_below(high, freedom) < probability:
        high *= 2
    for _ in range(80):  # halves the interval each time: to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def t_below(t: float, freedom: int) -> float:
    """The distribution function for whole degrees of freedom: a finite sum (Abramowitz and Stegun, 26.7.3 and 4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(2 + odd, freedom + 1, 2):  # powers of the cosine below freedom - 1
        total += term
        term *= math.cos(angle) ** 2 * (power - 1) / power
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 + inside) / 2
