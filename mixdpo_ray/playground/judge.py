"""Two models on the same held-out prompts: true quality, and how often the second one's answer is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mixdpo_ray.playground.world import Prompt, quality


@dataclass(frozen=True)
class Verdict:
    prompts: list[Prompt]
    before: list[str]
    after: list[str]

    @property
    def qualities(self) -> tuple[list[float], list[float]]:
        return (
            [quality(*case) for case in zip(self.prompts, self.before, strict=True)],
            [quality(*case) for case in zip(self.prompts, self.after, strict=True)],
        )

    @property
    def wins(self) -> list[float]:
        """1, 0, and one half for a tie."""
        return [0.5 if b == a else float(a > b) for b, a in zip(*self.qualities, strict=True)]

    @property
    def win_rate(self) -> tuple[float, float, float]:
        return mean_with_interval(self.wins)


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval, by the normal approximation."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = 1.96 * math.sqrt(variance / len(values))
    return mean, mean - half, mean + half
