"""What every arm and seed came to, and the arms' means with their differences, paired by seed and by held-out pair."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mixdpo_ray.intervals import Estimate, kind_of
from mixdpo_ray.training.held_out_pairs import HeldOutPairs, matrix
from mixdpo_ray.training.metric_names import JUDGE_METRICS


@dataclass(frozen=True)
class Outcome:
    arm: str
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # none of an arm that failed, or has not ended
    seconds: float = 0.0
    failure: str = ""
    pairs: HeldOutPairs | None = field(default=None, compare=False, repr=False)  # not kept by earlier versions
    prompts: HeldOutPairs | None = field(default=None, compare=False, repr=False)  # where answers were judged

    @property
    def state(self) -> str:
        return "failed" if self.failure else "ended" if self.metrics else "missing"

    def behind(self, metric: str) -> HeldOutPairs | None:
        """The pairs, or prompts, that a metric is a mean over."""
        return self.prompts if metric in JUDGE_METRICS else self.pairs


@dataclass(frozen=True)
class ResultRow:
    """An arm over its seeds."""

    arm: str
    outcomes: tuple[Outcome, ...]
    against: tuple[Outcome, ...]  # of the arm that differences are taken from
    same_pairs: bool  # held out for every seed; a playground of each seed has its own, and then the seeds say it all

    def values(self, metric: str) -> dict[int, float]:
        """The values of a metric by seed, where it was measured."""
        return _values(self.outcomes, metric)

    def mean(self, metric: str) -> Estimate:
        measured = [one for one in self.outcomes if metric in one.metrics]
        alone = Estimate.of([one.metrics[metric] for one in measured])
        if not self.same_pairs:
            return alone
        found = matrix([one.behind(metric) for one in measured], metric)
        return replace(alone, complete=False) if found is None else Estimate.crossed(found[1], kind_of(metric))

    def gaps(self, metric: str) -> list[float]:
        """One for each seed that both have: what differs from seed to seed falls out."""
        return [mine.metrics[metric] - theirs.metrics[metric] for mine, theirs in self._both(metric)]

    def difference(self, metric: str) -> Estimate:
        """Seed against seed and pair against pair, where both arms were judged on the same pairs."""
        alone = Estimate.of(self.gaps(metric))
        if not self.same_pairs:
            return alone
        both = self._both(metric)
        mine, theirs = (matrix([one[side].behind(metric) for one in both], metric) for side in (0, 1))
        if mine is None or theirs is None or mine[0] != theirs[0]:
            return replace(alone, complete=False)
        return Estimate.crossed(mine[1] - theirs[1], kind_of(metric, difference=True))

    def _both(self, metric: str) -> list[tuple[Outcome, Outcome]]:
        theirs = {one.seed: one for one in self.against if metric in one.metrics}
        return [(one, theirs[one.seed]) for one in self.outcomes if metric in one.metrics and one.seed in theirs]

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


def result_rows(
    outcomes: Sequence[Outcome], names: Sequence[str], against: str, *, same_pairs: bool
) -> list[ResultRow]:
    def of(name: str) -> tuple[Outcome, ...]:
        return tuple(one for one in outcomes if one.arm == name)

    return [ResultRow(name, of(name), of(against), same_pairs) for name in names]


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
