"""What the demo did, in one picture: why small margins are hard, and true quality before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.playground.annotator import RatedPair
from mixdpo_ray.playground.judge import Verdict, mean_with_interval
from mixdpo_ray.playground.prompts import BEST, OPERATIONS, WORST

BEFORE, AFTER, INK = "#b3b9c2", "#1b6ca8", "#444444"
GRID = 0.5  # of ratings
WIDEST = 4.0  # margins from here on share a bar
LEGEND = 0.14  # of a panel's height, which no bar reaches


def draw_picture(path: Path, verdict: Verdict, pairs: Sequence[RatedPair], threshold: Threshold) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.9), layout="constrained")
    labels, qualities, operations = figure.subplots(1, 3)
    _labels(labels, pairs, threshold)
    _qualities(qualities, verdict)
    _operations(operations, verdict)
    for axis in (labels, qualities, operations):
        axis.spines[["top", "right"]].set_visible(False)
    low, high = verdict.interval
    figure.suptitle(f"win rate against the base model {verdict.win_rate:.1%}  (95 %: {low:.1%} to {high:.1%})")
    figure.savefig(path, dpi=120)


def _labels(axis: Any, pairs: Sequence[RatedPair], threshold: Threshold) -> None:
    margins = np.arange(0, WIDEST + GRID, GRID)
    groups = [[pair.right for pair in pairs if min(pair.margin, WIDEST) == margin] for margin in margins]
    shares = [100 * sum(group) / max(1, len(group)) for group in groups]
    hard = sorted(pair.margin for pair in pairs)[: threshold.hard_pairs(np.array([pair.margin for pair in pairs]))]
    below = hard[-1] if hard else -1.0
    colors = [BEFORE if margin <= below else AFTER for margin in margins]
    bars = axis.bar(margins, shares, 0.8 * GRID, color=colors)
    axis.bar_label(bars, [f"{100 * len(group) / len(pairs):.0f} %" for group in groups], fontsize=8, color=INK)
    axis.axhline(50, color=INK, linewidth=0.8, linestyle="--")
    names = [f"{margin:g}" for margin in margins[:-1]] + [f"{WIDEST:g}+"]
    axis.set_xticks(margins, names)
    axis.set(title="labels that are right (%)", ylim=(0, 112), yticks=range(0, 101, 25))
    axis.set_xlabel("rating margin, with its share of all pairs\ngrey: hard pairs, learned by SFT")


def _qualities(axis: Any, verdict: Verdict) -> None:
    bins = np.arange(WORST - 0.5, BEST + 1)
    both = [verdict.quality_before, verdict.quality_after]
    counts, *_ = axis.hist(both, bins=bins, color=[BEFORE, AFTER], label=["before", "after"])
    axis.set(title="answers to held-out prompts", xlabel="true quality", xticks=range(1, 11))
    axis.set_ylim(0, np.max(counts) / (1 - LEGEND))
    axis.legend(frameon=False, loc="upper center", ncols=2)


def _operations(axis: Any, verdict: Verdict) -> None:
    ticks = np.arange(len(OPERATIONS))
    for shift, color, label, qualities in (
        (-0.2, BEFORE, "before", verdict.quality_before),
        (0.2, AFTER, "after", verdict.quality_after),
    ):
        groups = [_of_operation(verdict, qualities, operation) for operation in OPERATIONS]
        means, halves = zip(*(mean_with_interval(group) for group in groups), strict=True)
        axis.bar(ticks + shift, means, 0.4, yerr=halves, color=color, label=label, capsize=2, ecolor=INK)
    axis.set_xticks(ticks, list(OPERATIONS))
    axis.set(title="mean true quality by operation", ylim=(WORST, BEST))


def _of_operation(verdict: Verdict, qualities: Sequence[float], operation: str) -> list[float]:
    pairs = zip(qualities, verdict.prompts, strict=True)
    return [quality for quality, prompt in pairs if prompt.operation == operation]
