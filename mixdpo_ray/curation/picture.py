"""curation.png: what curating saw, what it found, and the ratings before and after."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curation.curated import CuratedPairs
from mixdpo_ray.curation.mixture import Mixture
from mixdpo_ray.pairs.report import EASY, HARD, INK
from mixdpo_ray.tables.prepared_table import PreparedTable

_BINS = 40
MOST_WRITTEN = 8  # classes whose cells of the matrix have room for a number
LIGHT = "#a9c6d6"


def draw_curation(curated: CuratedPairs, base: PreparedTable) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    draws = {"ds2": _ratings, "perpcorrect": _surprise, "agreement": _raters}
    draws[curated.facts["method"]](left, middle, curated)
    _before_and_after(right, curated, base)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_color(INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    return picture.getvalue()


def _ratings(left: Any, middle: Any, curated: CuratedPairs) -> None:
    """The transition matrix, and how many of each class were found wrong."""
    facts = curated.facts
    matrix, names = np.array(facts["matrix"]), [f"{value:.3g}" for value in facts["classes"]]
    left.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(len(names)) if len(names) <= MOST_WRITTEN else ():
        for column in range(len(names)):
            value = matrix[row, column]
            left.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.5 else INK)
    ticks = np.arange(len(names))
    left.set_xticks(ticks, names)
    left.set_yticks(ticks, names)
    left.set_xlabel("rated (median of the class)")
    left.set_ylabel("truly, as neighbours tell")
    left.set_title(f"Transition matrix: {facts['rated_wrong']:.0%} rated wrong", loc="left", fontsize=11)
    seen, wrong = np.array(facts["seen"]), np.array(facts["seen_wrong"])
    middle.bar(ticks, wrong, color=HARD, label=f"found wrong: {wrong.sum():,}")
    middle.bar(ticks, seen - wrong, bottom=wrong, color=EASY, label=f"others: {(seen - wrong).sum():,}")
    middle.set_xticks(ticks, names)
    middle.set_xlabel("rated (median of the class)")
    middle.set_ylabel("answers")
    middle.set_ylim(0, 1.2 * max(int(seen.max()), 1))
    middle.legend(frameon=False, loc="upper right", ncols=2)
    agree = f"neighbours agree {facts['neighbours_agree']:.0%}, by chance {facts['by_chance']:.0%}"
    middle.set_title(f"Found: {agree}", loc="left", fontsize=11)


def _surprise(left: Any, middle: Any, curated: CuratedPairs) -> None:
    """The mixture of the round that decides, and the separation of all."""
    facts = curated.facts
    edges, counts = np.array(facts["histogram"]["edges"]), np.array(facts["histogram"]["counts"])
    best = facts["rounds"][facts["best"]]
    fit = Mixture(best["mean"], best["deviation"], best["right"])
    width, middles = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
    left.bar(middles, counts, width, color=LIGHT)
    for mean, share, colour, label in (
        (fit.mean, fit.right, EASY, "the right way round"),
        (-fit.mean, fit.noise_rate, HARD, f"the wrong way: {fit.noise_rate:.1%}"),
    ):
        density = np.exp(-((middles - mean) ** 2) / (2 * fit.deviation**2)) / (fit.deviation * np.sqrt(2 * np.pi))
        left.plot(middles, counts.sum() * width * share * density, color=colour, label=label)
    inside = edges[0] <= fit.threshold <= edges[-1]
    left.axvline(
        fit.threshold if inside else edges[-1], color=INK, linestyle="--" if inside else "", linewidth=1,
        label=f"flipped from {fit.threshold:.3g} on",
    )  # fmt: skip
    left.set_xlabel("surprise, chosen minus rejected, nats a token")
    left.set_ylabel("pairs")
    left.set_ylim(0, 1.35 * max(int(counts.max()), 1))
    left.legend(loc="upper right", fontsize=9, framealpha=1, edgecolor="none")
    left.set_title(f"Round {facts['best']}", loc="left", fontsize=11)
    separation = [one["separation"] for one in facts["rounds"]]
    middle.plot(range(len(separation)), separation, "o-", color=EASY)
    middle.plot([facts["best"]], [separation[facts["best"]]], "o", color=HARD, markersize=9)
    middle.set_xticks(range(len(separation)))
    middle.set_xlabel("round")
    middle.set_ylabel("share of pairs told apart rightly")
    middle.set_ylim(0.45, 1.02)
    middle.set_title("Separation, by the fitted mixture", loc="left", fontsize=11)


def _raters(left: Any, middle: Any, curated: CuratedPairs) -> None:
    """Agreed and disagreed pairs by their margins, and how far raters are apart."""
    facts, width = curated.facts, curated.columns["disagreement"]
    pairs = len(width)
    found = facts["found"]
    left.bar([0, 1], [pairs - found, found], color=[EASY, HARD])
    left.set_xticks([0, 1], ["raters agree", "they disagree"])
    left.set_ylabel("pairs")
    left.set_title(f"{facts['raters']} raters, {found / max(pairs, 1):.0%} disagreed", loc="left", fontsize=11)
    middle.hist(width, _BINS, color=EASY)
    middle.set_xlabel("standard deviation of the raters' margins")
    middle.set_ylabel("pairs")
    middle.set_title("How far apart raters are", loc="left", fontsize=11)


def _before_and_after(axes: Any, curated: CuratedPairs, base: PreparedTable) -> None:
    """Ratings where they can change, else margins: those of the source, and those of the pairs that are left."""
    before = [base.numbers("train", f"score_{name}") for name in ("chosen", "rejected")]
    rated = curated.facts["method"] == "ds2"
    old = np.concatenate(before) if rated else base.index("train").margin
    kept = curated.kept
    sign = np.where(curated.exchanged, -1.0, 1.0)  # the margin of a pair whose answers are exchanged was against it
    new = (
        np.concatenate([curated.score_chosen[kept], curated.score_rejected[kept]])
        if rated
        else (sign * curated.margin)[kept]
    )
    values = np.concatenate([old, new])
    low, high = float(values.min()), float(values.max())
    edges = _edges(values, low, high)
    axes.hist(old, edges, color=LIGHT, label=f"before: {len(old):,}")
    axes.hist(new, edges, histtype="step", color=HARD, linewidth=1.5, label=f"after: {len(new):,}")
    axes.set_xlabel("rating" if rated else "margin; below 0: of the order that the source had")
    axes.set_ylabel("answers" if rated else "pairs")
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper right", ncols=2)
    axes.set_title("Ratings before and after" if rated else "Margins before and after", loc="left", fontsize=11)


def _edges(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """A bin for each value of a grid, where there are few."""
    grid = np.unique(np.round(values, 6))
    if 1 < len(grid) <= _BINS:
        width = float(np.diff(grid).min())
        return np.arange(low - width / 2, high + width, width)
    return np.linspace(low - 1e-9, high + 1e-9, _BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
