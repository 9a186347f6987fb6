"""The comparison in one picture: a dot for each seed and the interval of their mean, arm by arm as in the recipe."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from mixdpo_ray.comparison.results import ResultRow
from mixdpo_ray.comparison.student import Estimate

DOT, MEAN, INK, SURE = "#b3b9c2", "#444444", "#444444", "#1b6ca8"


def picture(rows: Sequence[ResultRow], metric: str, against: str) -> bytes:
    """Left the values, right the differences, which are paired and so much narrower."""
    from matplotlib.figure import Figure

    longest = max(len(row.arm) for row in rows)
    figure = Figure(figsize=(7.5 + 0.09 * longest, 1.7 + 0.34 * len(rows)), layout="constrained")
    values, differences = figure.subplots(1, 2, sharey=True)
    for height, row in enumerate(rows):
        _draw(values, height, list(row.values(metric).values()), row.mean(metric), MEAN)
        if not row.is_yardstick:
            difference = row.difference(metric)
            _draw(differences, height, row.gaps(metric), difference, SURE if difference.excludes_zero else MEAN)
    differences.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    values.set(title=metric, yticks=range(len(rows)), yticklabels=[row.arm for row in rows])
    values.set_ylim(len(rows) - 0.5, -0.5)
    differences.set(title=f"against {against}")
    for axis in (values, differences):
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    figure.supxlabel("dots: seeds; bars: mean and 95 % interval over seeds; blue: the interval excludes 0", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png")
    return file.getvalue()


def _draw(axis: Any, height: int, values: Sequence[float], estimate: Estimate, color: str) -> None:
    if not estimate.count:
        axis.annotate("failed", (0.02, height), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=8)
        return
    axis.scatter(values, [height + 0.18] * len(values), s=14, color=DOT, zorder=2)
    half = estimate.half if math.isfinite(estimate.half) else 0.0
    axis.errorbar(estimate.mean, height - 0.08, xerr=half, fmt="o", markersize=4.5, capsize=3, color=color, zorder=3)
