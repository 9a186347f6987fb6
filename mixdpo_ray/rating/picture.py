"""How ratings lie, a histogram for each rater, and the margins that pairs will have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdpo_ray.pairs.histogram import margin_histogram
from mixdpo_ray.pairs.report import EASY, HARD, INK
from mixdpo_ray.rating.combine import Ratings


def draw_ratings(ratings: Mapping[str, Ratings], margins: Sequence[float], *, pairs: bool) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = len(ratings) + 1
    figure = Figure(figsize=(7.5, 1.1 + 1.7 * panels), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global is touched, no display is needed
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for panel, (name, of_one) in zip(axes, ratings.items(), strict=False):
        _bars(
            panel,
            of_one[np.isfinite(of_one)],
            EASY,
            f"{name}: ratings of {np.isfinite(of_one).sum():,} answers",
            "answers",
        )
    what = "chosen minus rejected" if pairs else "best minus worst"
    _bars(
        axes[-1],
        np.array(margins),
        HARD,
        f"Margins, {what}: {len(margins):,} {'pairs' if pairs else 'prompts'}",
        "pairs" if pairs else "prompts",
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    return picture.getvalue()


def _bars(axes: Any, values: Ratings, colour: str, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    if not len(values):
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=INK)
        return
    histogram = margin_histogram(values)
    low, high = np.array(histogram.low), np.array(histogram.high)
    width = 0.85 * float(np.min(np.diff(low), initial=1.0)) if histogram.on_grid else high[0] - low[0]
    axes.bar((low + high) / 2, histogram.count, width, color=colour)
    axes.set_ylim(0, 1.25 * max(histogram.count))
    axes.axvline(float(np.median(values)), color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        f" median {np.median(values):.3g}", (float(np.median(values)), 0.97),
        xycoords=("data", "axes fraction"), va="top", color=INK,
    )  # fmt: skip
