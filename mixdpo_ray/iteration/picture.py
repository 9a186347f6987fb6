"""The rounds in one picture: win rates with their intervals, lengths, ratings and margins, and what gave no pair."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Literal

from mixdpo_ray.iteration.results import EVEN, RoundResult
from mixdpo_ray.iteration.round_judge import JudgedAgainst

OVER_LAST, OVER_FIRST, QUIET, NO_PAIR = "#1b6ca8", "#c8553d", "#9aa1a9", "#d9dde2"
APART = 0.06  # of a round's width: two intervals side by side


def rounds_picture(rounds: Sequence[RoundResult], kind: Literal["png", "svg"]) -> bytes:
    """An svg has no ground of its own: a page gives it one, light or dark."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    axes = figure.subplots(2, 2)
    for draw, axis in zip((_win_rates, _lengths, _margins, _prompts), axes.flat, strict=True):
        draw(axis, rounds)
        axis.set_xlabel("round")
        axis.set_xlim(-0.4 if draw is _lengths else 0.5, max(1, len(rounds)) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=144, transparent=kind == "svg")
    return file.getvalue()


def _win_rates(axis: Any, rounds: Sequence[RoundResult]) -> None:
    axis.set_title("win rate (%), with 95 % intervals")
    axis.axhline(100 * EVEN, color="#444444", linewidth=0.8, linestyle="--")
    for shift, color, name, judged in (
        (-APART, OVER_LAST, "over the last round's model", [one.over_last for one in rounds]),
        (APART, OVER_FIRST, "over the first model", [one.over_first for one in rounds]),
    ):
        _intervals(axis, [one.number + shift for one in rounds], judged, color, name)
    if rounds:
        axis.legend(frameon=False, fontsize=8.5, loc="best")


def _intervals(axis: Any, numbers: Sequence[float], judged: Sequence[JudgedAgainst], color: str, name: str) -> None:
    values = [100 * one.win_rate for one in judged]
    ends = [[100 * (one.win_rate - one.low) for one in judged], [100 * (one.high - one.win_rate) for one in judged]]
    axis.errorbar(
        numbers, values, yerr=ends, color=color, marker="o", markersize=5, linewidth=1.2, capsize=3, label=name
    )


def _lengths(axis: Any, rounds: Sequence[RoundResult]) -> None:
    axis.set_title("length of answers (characters); 0: first model")
    lengths = [*(one.first_length for one in rounds[:1]), *(one.length for one in rounds)]
    axis.plot(range(len(lengths)), lengths, color=OVER_LAST, marker="o", markersize=5, linewidth=1.2)
    axis.set_ylim(0, 1.15 * max([*lengths, 1]))


def _margins(axis: Any, rounds: Sequence[RoundResult]) -> None:
    axis.set_title("rating of a round's answers, and margin of its pairs")
    numbers = [one.number for one in rounds]
    raters = dict.fromkeys(rater for one in rounds for rater in one.pairs.ratings)
    for rater, marker in zip(raters, cycle("o^Dv"), strict=False):
        ratings = [one.pairs.ratings.get(rater, math.nan) for one in rounds]
        axis.plot(numbers, ratings, color=OVER_LAST, marker=marker, linewidth=1.2, label=f"mean rating ({rater})")
    low, middle, high = zip(*(one.pairs.margins for one in rounds), strict=True) if rounds else ((), (), ())
    axis.plot(numbers, middle, color=OVER_FIRST, marker="s", markersize=5, linewidth=1.2, label="margin, median")
    axis.vlines(numbers, low, high, color=OVER_FIRST, linewidth=5, alpha=0.3, label="margin, quartiles")
    if rounds:
        axis.legend(frameon=False, fontsize=8.5, loc="best")


def _prompts(axis: Any, rounds: Sequence[RoundResult]) -> None:
    axis.set_title("what became of a round's prompts")
    numbers, below = [one.number for one in rounds], [0] * len(rounds)
    parts = (
        ("trained", OVER_LAST, [one.pairs.trained - one.pairs.ties for one in rounds]),
        ("trained, of equal rating", QUIET, [one.pairs.ties for one in rounds]),
        ("held out", "#7db8e8", [one.pairs.held_out for one in rounds]),
        ("no pair", NO_PAIR, [sum(one.pairs.quarantined.values()) for one in rounds]),
    )
    for name, color, counts in parts:
        if any(counts):
            axis.bar(numbers, counts, 0.5, bottom=below, color=color, label=name)
        below = [one + more for one, more in zip(below, counts, strict=True)]
    if rounds:
        axis.set_ylim(0, 1.3 * max([*below, 1]))
        axis.legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center")
