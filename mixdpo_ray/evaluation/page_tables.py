"""The page's tables: scores with their intervals drawn, differences of arms, and every score of every arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.evaluation.results import ArmDifference, EvaluatedArm, EvaluatedBenchmark, smallest_shown
from mixdpo_ray.evaluation.score_names import (
    even_score,
    interval_words,
    score_of_category,
    score_parts,
    score_title,
    score_value,
)

_NONE = "-"
_ROOM = 0.06  # of an axis, left and right of what is drawn


@dataclass(frozen=True)
class DrawnAxis:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> DrawnAxis:
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        room = _ROOM * (high - low or 1.0)
        return cls(low - room, high + room)

    def share(self, value: float) -> float:
        """Percent of the axis left of it."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class DrawnInterval:
    """Positions in percent of the axis."""

    left: float
    width: float
    value: float
    middle: float | None  # of the line that it is seen against

    @classmethod
    def of(cls, score: BenchmarkScore, axis: DrawnAxis, middle: float | None) -> DrawnInterval | None:
        """None where an end is not known."""
        if not all(map(math.isfinite, (score.low, score.value, score.high))):
            return None
        left, right = axis.share(score.low), axis.share(score.high)
        return cls(
            left, round(right - left, 2), axis.share(score.value), None if middle is None else axis.share(middle)
        )


@dataclass(frozen=True)
class ArmLine:
    name: str
    model: str
    no_score: str = ""
    value: str = ""
    interval: str = ""
    drawn: DrawnInterval | None = None
    prompts: str = ""
    length: str = _NONE
    reference_length: str = _NONE
    first_shown: str = _NONE
    flips: str = _NONE


@dataclass(frozen=True)
class HeadlineTable:
    title: str
    lines: tuple[ArmLine, ...]
    pairwise: bool
    with_lengths: bool
    can_show: str


@dataclass(frozen=True)
class ApartLine:
    arm: str
    against: str
    value: str
    interval: str
    drawn: DrawnInterval | None
    words: str
    sure: bool


@dataclass(frozen=True)
class ApartTable:
    title: str
    lines: tuple[ApartLine, ...]


@dataclass(frozen=True)
class ScoreTable:
    arms: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def headline_tables(benchmark: EvaluatedBenchmark) -> Iterator[HeadlineTable]:
    for name in benchmark.headlines or (benchmark.main,):
        category, plain = score_parts(name, benchmark.main)
        found = [arm.scores[name] for arm in benchmark.arms if name in arm.scores]
        middle = even_score(plain)
        ends = [end for score in found for end in (score.low, score.high)]
        axis = DrawnAxis.over([*ends, *([] if middle is None else [middle])] or [0.0])
        lines = tuple(_line(benchmark, arm, name, axis) for arm in benchmark.arms)
        pairwise = any(score_of_category(category, "first_shown_share") in arm.scores for arm in benchmark.arms)
        with_lengths = any(line.length != _NONE for line in lines)
        can_show = _can_show(benchmark, name)
        yield HeadlineTable(score_title(name, benchmark.main), lines, pairwise, with_lengths, can_show)


def _line(benchmark: EvaluatedBenchmark, arm: EvaluatedArm, name: str, axis: DrawnAxis) -> ArmLine:
    category, plain = score_parts(name, benchmark.main)
    score = arm.scores.get(name)
    if score is None:
        return ArmLine(arm.name, arm.model, arm.no_score or "it has no such score")

    def beside(what: str) -> str:
        other = arm.scores.get(score_of_category(category, what), arm.scores.get(what))
        return _NONE if other is None else score_value(other.value, what)

    return ArmLine(
        arm.name,
        arm.model,
        value=score_value(score.value, plain),
        interval=interval_words(score, plain),
        drawn=DrawnInterval.of(score, axis, even_score(plain)),
        prompts=f"{score.prompts:,}",
        length=beside("average_length"),
        reference_length=beside("baseline_length"),
        first_shown=beside("first_shown_share"),
        flips=beside("flip_rate"),
    )


def _can_show(benchmark: EvaluatedBenchmark, name: str) -> str:
    """What the number of prompts can tell apart."""
    _, plain = score_parts(name, benchmark.main)
    apart = [one.apart for one in benchmark.differences if one.score == name]
    scores = [arm.scores[name] for arm in benchmark.arms if name in arm.scores]
    shown = apart or scores
    known = [one for one in shown if 0 < smallest_shown(one) < math.inf]
    if not known:
        return ""
    most = max(known, key=smallest_shown)
    what = "a difference of" if apart else "a distance of"
    rest = "between two arms" if apart else "from any other value"
    return (
        f"{most.prompts:,} prompts show {what} {score_value(smallest_shown(most), plain)} {rest} in 80 of 100 "
        "evaluations; smaller ones are often missed."
    )


def apart_tables(benchmark: EvaluatedBenchmark) -> Iterator[ApartTable]:
    for name in dict.fromkeys(one.score for one in benchmark.differences):
        found = [one for one in benchmark.differences if one.score == name]
        _, plain = score_parts(name, benchmark.main)
        axis = DrawnAxis.over([0.0, *(end for one in found for end in (one.apart.low, one.apart.high))])
        lines = tuple(_apart(one, plain, axis) for one in found)
        yield ApartTable(score_title(name, benchmark.main), lines)


def _apart(one: ArmDifference, plain: str, axis: DrawnAxis) -> ApartLine:
    sure, ahead = one.apart.excludes_zero, one.apart.value > 0
    words = ("ahead" if ahead else "behind") if sure else "not told apart"
    return ApartLine(
        one.arm,
        one.against,
        score_value(one.apart.value, plain, signed=True),
        interval_words(one.apart, plain, signed=True),
        DrawnInterval.of(one.apart, axis, 0.0),
        words,
        sure,
    )


def score_table(benchmark: EvaluatedBenchmark) -> ScoreTable:
    names = dict.fromkeys(name for arm in benchmark.arms for name in arm.scores)
    rows = tuple(
        (score_title(name, benchmark.main), tuple(_cell(arm, name, benchmark.main) for arm in benchmark.arms))
        for name in names
    )
    return ScoreTable(tuple(arm.name for arm in benchmark.arms), rows)


def _cell(arm: EvaluatedArm, name: str, main: str) -> str:
    score, (_, plain) = arm.scores.get(name), score_parts(name, main)
    return _NONE if score is None else f"{score_value(score.value, plain)} ({interval_words(score, plain)})"
