"""Two models on the same held-out prompts: true quality, and how often the second one's answer is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mixdpo_ray.playground.prompts import Prompt, quality

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Verdict:
    prompts: Sequence[Prompt]
    before: Sequence[str]
    after: Sequence[str]

    @cached_property
    def quality_before(self) -> list[float]:
        return [quality(*answer) for answer in zip(self.prompts, self.before, strict=True)]

    @cached_property
    def quality_after(self) -> list[float]:
        return [quality(*answer) for answer in zip(self.prompts, self.after, strict=True)]

    @cached_property
    def gains(self) -> list[float]:
        """True quality after minus before, one prompt at a time."""
        return [after - before for before, after in zip(self.quality_before, self.quality_after, strict=True)]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Prompts won, tied, lost."""
        won, lost = sum(gain > 0 for gain in self.gains), sum(gain < 0 for gain in self.gains)
        return won, len(self.gains) - won - lost, lost

    @property
    def win_rate(self) -> float:
        """Ties count half."""
        won, tied, _ = self.counts
        return (won + tied / 2) / len(self.gains)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.win_rate, len(self.gains))


def wilson_interval(share: float, count: int, z: float = NORMAL_95) -> tuple[float, float]:
    """The 95 % score interval of a share; with ties counted half it errs on the wide side."""
    shrink = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / shrink
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / shrink
    return centre - half, centre + half


def mean_with_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, NORMAL_95 * math.sqrt(variance / len(values))
