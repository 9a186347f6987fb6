"""The comparison in one picture: a dot for each seed and the interval of their mean, arm by arm as in the recipe."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from mixdpo_ray.comparison.results import ResultRow
from mixdpo_ray.comparison.table import heading
from mixdpo_ray.intervals import Estimate, ends_of

DOT, MEAN, INK, SURE = "#a9b0ba", "#444444", "#444444", "#1b6ca8"
ROOM = 0.07  # of an axis, left and right of what is drawn


def picture(rows: Sequence[ResultRow], metric: str, against: str) -> bytes:
    """Left the values, right the differences, which are paired and so much narrower."""
    from matplotlib.figure import Figure

    longest = max(len(row.arm) for row in rows)
    figure = Figure(figsize=(6.6 + 0.08 * longest, 1.9 + 0.36 * len(rows)), layout="constrained")
    values, differences = figure.subplots(1, 2, sharey=True)
    for height, row in enumerate(rows):
        _draw(values, height, list(row.values(metric).values()), row.mean(metric), MEAN, ends_of(metric))
        if not row.is_yardstick:
            difference = row.difference(metric)
            color, ends = SURE if difference.excludes_zero else MEAN, ends_of(metric, difference=True)
            _draw(differences, height, row.gaps(metric), difference, color, ends)
    differences.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    values.set(title=heading(metric), yticks=range(len(rows)), yticklabels=[row.arm for row in rows])
    values.set_ylim(len(rows) - 0.5, -0.5)
    differences.set(title=f"against {against}")
    for axis in (values, differences):
        axis.margins(x=ROOM)
        axis.locator_params(axis="x", nbins=5)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    figure.supxlabel(_legend(rows, metric), fontsize=8.5, color=INK)
    file = io.BytesIO()
    figure.savefig(file, dpi=144, format="png")
    return file.getvalue()


def _legend(rows: Sequence[ResultRow], metric: str) -> str:
    pairs = max((row.mean(metric).pairs for row in rows), default=0)
    over = f"seeds and {pairs:,} held-out pairs" if pairs else "seeds alone"
    estimates = [one for row in rows for one in (row.mean(metric), row.difference(metric))]
    hollow = "; hollow: no interval is known" if any(math.isinf(one.half) and one.count for one in estimates) else ""
    return f"dots: seeds; bars: mean and 95 % interval over {over}{hollow}\nblue: the interval excludes 0"


def _draw(
    axis: Any, height: int, values: Sequence[float], estimate: Estimate, color: str, ends: tuple[float, float] | None
) -> None:
    """The mean is a short stroke across the bar: a dot would hide an interval that is narrower than itself."""
    if not estimate.count:
        axis.annotate("failed", (0.02, height), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=8)
        return
    axis.scatter(values, [height + 0.2] * len(values), s=16, color=DOT, zorder=2, linewidths=0)
    if math.isinf(estimate.half):
        axis.plot(estimate.mean, height - 0.1, "o", markersize=6, color=color, markerfacecolor="none", zorder=3)
        return
    interval = (estimate.low, estimate.high) if ends is None else estimate.within(ends)
    axis.plot(interval, [height - 0.1] * 2, color=color, linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=3)
    axis.plot(interval, [height - 0.1] * 2, "|", color=color, markersize=9, markeredgewidth=1.2, zorder=3)
    axis.plot(estimate.mean, height - 0.1, "|", color=color, markersize=13, markeredgewidth=2.4, zorder=4)
