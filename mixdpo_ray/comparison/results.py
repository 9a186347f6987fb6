"""What every arm and seed came to, and the arms' means with their differences, paired by seed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixdpo_ray.comparison.student import Estimate


@dataclass(frozen=True)
class Outcome:
    arm: str
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # none of an arm that failed, or has not ended
    seconds: float = 0.0
    failure: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.failure else "ended" if self.metrics else "missing"


@dataclass(frozen=True)
class ResultRow:
    """An arm over its seeds."""

    arm: str
    outcomes: tuple[Outcome, ...]
    against: tuple[Outcome, ...]  # of the arm that differences are taken from

    def values(self, metric: str) -> dict[int, float]:
        """The values of a metric by seed, where it was measured."""
        return _values(self.outcomes, metric)

    def mean(self, metric: str) -> Estimate:
        return Estimate.of(list(self.values(metric).values()))

    def gaps(self, metric: str) -> list[float]:
        """One for each seed that both have: what differs from seed to seed falls out."""
        mine, theirs = self.values(metric), _values(self.against, metric)
        return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]

    def difference(self, metric: str) -> Estimate:
        return Estimate.of(self.gaps(metric))

    @property
    def is_yardstick(self) -> bool:
        return self.outcomes == self.against

    @property
    def seconds(self) -> float:
        """Mean over the seeds that ended."""
        spent = [one.seconds for one in self.outcomes if one.state == "ended"]
        return math.fsum(spent) / len(spent) if spent else math.nan

    @property
    def failures(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.failure]


def result_rows(outcomes: Sequence[Outcome], names: Sequence[str], against: str) -> list[ResultRow]:
    def of(name: str) -> tuple[Outcome, ...]:
        return tuple(one for one in outcomes if one.arm == name)

    return [ResultRow(name, of(name), of(against)) for name in names]


def write_results(outcomes: Sequence[Outcome]) -> str:
    metrics = sorted({name for one in outcomes for name in one.metrics})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["arm", "seed", "state", "seconds", *metrics, "failure"])
    for one in outcomes:
        measured = [one.metrics.get(name, "") for name in metrics]
        writer.writerow([one.arm, one.seed, one.state, one.seconds, *measured, one.failure])
    return file.getvalue()


def _values(outcomes: Sequence[Outcome], metric: str) -> dict[int, float]:
    return {one.seed: one.metrics[metric] for one in outcomes if metric in one.metrics}
