"""What training did, in one picture: true quality before and after, by operation, and why small margins are hard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.playground.annotator import RatedPair
from mixdpo_ray.playground.judge import Verdict, mean_with_interval
from mixdpo_ray.playground.world import OPERATIONS

BEFORE, AFTER = "#9aa5b1", "#1b6ca8"


def draw_picture(path: Path, verdict: Verdict, pairs: Sequence[RatedPair], threshold: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    qualities, operations, margins = figure.subplots(1, 3)
    _qualities(qualities, verdict)
    _operations(operations, verdict)
    _margins(margins, pairs, threshold)
    figure.savefig(path, dpi=120)


def _qualities(axis: Any, verdict: Verdict) -> None:
    bins = np.arange(0.5, 11, 1)
    before, after = verdict.qualities
    axis.hist([before, after], bins=bins, color=[BEFORE, AFTER], label=["before", "after"])
    axis.set(title="answers to held-out prompts", xlabel="true quality", ylabel="answers")
    axis.legend(frameon=False)


def _operations(axis: Any, verdict: Verdict) -> None:
    before, after = verdict.qualities
    places = np.arange(len(OPERATIONS))
    for shift, color, label, values in ((-0.2, BEFORE, "before", before), (0.2, AFTER, "after", after)):
        groups = [
            mean_with_interval(
                [v for v, prompt in zip(values, verdict.prompts, strict=True) if prompt.operation == name]
            )
            for name in OPERATIONS
        ]
        means = [group[0] for group in groups]
        errors = [group[0] - group[1] for group in groups]
        axis.bar(places + shift, means, 0.4, yerr=errors, color=color, label=label, capsize=2)
    axis.set_xticks(places, list(OPERATIONS))
    axis.set(title="mean true quality by operation", ylim=(1, 10))
    axis.legend(frameon=False, loc="lower right")


def _margins(axis: Any, pairs: Sequence[RatedPair], threshold: float) -> None:
    edges = [0, 0.5, 1, 2, 3, 4, 5, 10]
    names, shares = [], []
    for low, high in zip(edges, edges[1:], strict=False):
        members = [pair.right for pair in pairs if low <= pair.margin < high]
        if members:
            names.append(f"{low:g}-{high:g}")
            shares.append(sum(members) / len(members))
    hard = sum(edge < threshold for edge in edges[:-1])
    colors = [BEFORE] * hard + [AFTER] * (len(names) - hard)
    axis.bar(names, shares, color=colors)
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle="--")
    axis.set(title="labels that are right, by margin", xlabel=f"rating margin (grey: hard, below {threshold:g})")
    axis.set_ylim(0, 1)
