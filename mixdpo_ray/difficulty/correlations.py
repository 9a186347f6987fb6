"""How far difficulty metrics agree: Spearman's rank correlation of every two of them, as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.checksums import checksum
from mixdpo_ray.difficulty.metric import Column

INCHES_PER_METRIC = 0.85
NONE = "-"  # instead of a correlation


def mean_ranks(values: Column) -> Column:
    """1 for the smallest; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Column = (last - (counts - 1) / 2)[which]
    return ranks


def spearman(columns: Mapping[str, Column]) -> NDArray[np.float64]:
    """[metrics, metrics]; NaN for a metric that says the same of every pair, which has no ranks."""
    ranks = np.array([mean_ranks(values) for values in columns.values()])
    centred = ranks - ranks.mean(1, keepdims=True)
    size = np.sqrt((centred**2).sum(1))
    with np.errstate(invalid="ignore"):
        return np.asarray((centred @ centred.T) / np.outer(size, size)).clip(-1, 1)


def correlations_text(columns: Mapping[str, Column]) -> str:
    """A line for each metric; numbers stand for the metrics in the same order."""
    width = max(map(len, columns))
    head = " " * (width + 4) + "".join(f"{number:>7}" for number in range(1, len(columns) + 1))
    lines = [
        f"{number:>2}  {name:<{width}}" + "".join(f"{_text(value):>7}" for value in row)
        for number, (name, row) in enumerate(zip(columns, spearman(columns), strict=True), 1)
    ]
    return "\n".join([head, *lines, *filter(None, [without_order(columns)])])


def without_order(columns: Mapping[str, Column]) -> str | None:
    """What the stroke means that stands for a correlation; nothing where none does."""
    flat = [name for name, values in columns.items() if np.ptp(values) == 0]
    if not flat:
        return None
    return f"{NONE}: {', '.join(flat)} {'is' if len(flat) == 1 else 'are'} the same for every pair, which is no order"


def picture_name(table: str, columns: Mapping[str, Column]) -> str:
    """A file for exactly these numbers of these metrics: no call overwrites another one's picture."""
    shown = checksum(b"".join(name.encode() + values.tobytes() for name, values in columns.items()))
    return f"correlations-{table[:16]}-{shown}.png"


def draw_correlations(columns: Mapping[str, Column]) -> bytes:
    """A PNG: an annotated heat map, from -1 (the opposite order) to 1 (the same)."""
    from matplotlib.figure import Figure

    matrix, count = spearman(columns), len(columns)
    side = max(4.0, INCHES_PER_METRIC * count) + 1.6
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes: Any = figure.add_subplot()
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    for row in range(count):
        for column in range(count):
            value = matrix[row, column]
            ink = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, _text(value), ha="center", va="center", color=ink, fontsize=9)
    names = [name.replace("_", " ") for name in columns]
    axes.set_xticks(range(count), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    pairs = len(next(iter(columns.values())))
    axes.set_title(f"Rank correlation of difficulty metrics ({pairs:,} training pairs, higher is easier)", fontsize=10)
    if note := without_order(columns):
        figure.supxlabel(note.replace("_", " "), fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Spearman's rho")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    return buffer.getvalue()


def _text(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.2f}"
