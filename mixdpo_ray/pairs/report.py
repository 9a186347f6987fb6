"""What people look at before they pay for a run: what was refused, how margins lie, what each threshold would mean."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.histogram import MarginHistogram, margin_histogram
from mixdpo_ray.pairs.tokens import TOOLS_IGNORED

BAR_WIDTH = 40
MOST_LINES = 24
QUANTILES = (0.05, 0.1, 0.12, 0.2, 0.25, 0.3, 0.5)
OWN, DEFAULT = "<- this recipe's", "<- the default"
MARGINS_PICTURE = "margins.png"
NOTES = {
    "several_raters": "rated by several",
    "missing_score_made_hard": "no score, margin 0",
    "negative_margin_made_hard": "negative, margin 0",
    TOOLS_IGNORED: "tools that the template ignores",
}
IGNORED = (
    "warning: {} pairs have tools, and the chat template renders them as if there were none: set model.chat_template "
    "to one that knows tools, or leave the column out"
)
EASY, HARD, INK = "#2a6f97", "#e07a3f", "#333333"


def accounting_text(
    rows_in: int, rows_kept: int, quarantined: Mapping[str, int], notes: Mapping[str, int] | None = None
) -> str:
    """Rows in = kept + refused by reason; below it what a policy changed in rows that were kept."""
    lines = [("rows in", rows_in, ""), ("kept", rows_kept, _share(rows_kept, rows_in))]
    for reason, count in sorted(quarantined.items(), key=lambda item: (-item[1], item[0])):
        lines.append((f"refused: {reason}", count, f"{_share(count, rows_in)}  {REASONS[reason]}"))
    for note, count in sorted((notes or {}).items()):
        lines.append((f"of those kept: {NOTES.get(note, note)}", count, _share(count, rows_in)))
    ignored = (notes or {}).get(TOOLS_IGNORED, 0)
    return "\n".join([aligned_columns(lines, text_last=True), *([IGNORED.format(ignored)] if ignored else [])])


def histogram_text(histogram: MarginHistogram, name: str = "margin") -> str:
    """One bar a value; where there are many, neighbours share a line."""
    together = -(-len(histogram.count) // MOST_LINES) or 1
    lines = []
    for first in range(0, len(histogram.count), together):
        last = min(first + together, len(histogram.count)) - 1
        lines.append((_range(histogram.low[first], histogram.high[last]), sum(histogram.count[first : last + 1])))
    total, most = max(sum(histogram.count), 1), max([count for _, count in lines], default=1)
    heading = name, "pairs", ""
    bars = [(name, count, f"{_share(count, total)}  {_bar(count, most)}") for name, count in lines]
    return aligned_columns([heading, *bars], text_last=True)


@dataclass(frozen=True)
class Stages:
    """What a threshold makes of the pairs; a margin that equals it is easy."""

    threshold: float
    easy: int
    hard: int
    easy_steps: int
    hard_steps: int


def stages(margins: NDArray[np.float64], global_batch: int) -> list[Stages]:
    """One for each margin of the grid; on a continuous scale, for round shares of hard pairs."""
    histogram = margin_histogram(margins)
    grid = histogram.low if histogram.on_grid else tuple(np.quantile(margins, QUANTILES).tolist())
    return [_stages(value, Threshold(value=value, tie_rule="lt"), margins, global_batch) for value in grid]


def _stages(value: float, threshold: Threshold, margins: NDArray[np.float64], global_batch: int) -> Stages:
    hard = threshold.hard_pairs(margins)
    easy = len(margins) - hard
    return Stages(value, easy, hard, -(-easy // global_batch), -(-hard // global_batch))


def thresholds_text(margins: NDArray[np.float64], global_batch: int, own: Threshold | None = None) -> str:
    """Pairs and optimizer steps of both stages for each threshold; that of the recipe is among them, and marked."""
    heading = ("threshold", "easy pairs", "steps", "hard pairs", "steps", "hard", "")
    rows = [(f"{stage.threshold:.4g}", stage, "") for stage in stages(margins, global_batch)[:MOST_LINES]]
    if own is not None:
        rows = _with_own(rows, own, margins, global_batch)
    lines: list[Sequence[Any]] = [heading]
    for name, stage, mark in rows:
        share = _share(stage.hard, len(margins))
        lines.append((name, stage.easy, stage.easy_steps, stage.hard, stage.hard_steps, share, mark))
    told = "pairs at the threshold itself are easy"
    return f"{aligned_columns(lines, text_last=True)}\n(one epoch, {global_batch} pairs a step; {told})"


def _with_own(
    rows: list[tuple[str, Stages, str]], own: Threshold, margins: NDArray[np.float64], global_batch: int
) -> list[tuple[str, Stages, str]]:
    """Put the recipe's threshold where it belongs: by value, or, where their number decides, by how many are hard."""
    value = own.in_force
    stage = _stages(np.nan if value is None else value, own, margins, global_batch)
    mine = (str(own) if own.tie_rule == "lt" else f"{own}, tie_rule=le", stage, OWN if own.given else DEFAULT)
    same = [row for row in rows if row[0] != mine[0] or row[1].hard != stage.hard]
    key = (lambda row: row[1].hard) if value is None else (lambda row: row[1].threshold)
    return sorted([*same, mine], key=key)


def draw(
    path: str,
    margins: NDArray[np.float64],
    threshold: Threshold | None = None,
    metric: str = "",
    sources: Mapping[str, int] | None = None,
) -> None:
    """The histogram with the hard pairs in another colour, and below it the share of hard pairs for every threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global is touched, no display is needed
    bars, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_bars(bars, margins, threshold or Threshold())
    _draw_shares(shares, margins, metric)
    mixed = ", ".join(f"{name} {pairs:,}" for name, pairs in (sources or {}).items())
    title = f"{metric or 'Margins'} of {len(margins):,} pairs{f' ({mixed})' if mixed else ''}"
    bars.set_title(title, loc="left", color=INK, fontsize=12)
    for axes in (bars, shares):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    storage.write_bytes(path, picture.getvalue())


def _draw_bars(axes: Any, margins: NDArray[np.float64], threshold: Threshold) -> None:
    hard_pairs = threshold.hard_pairs(margins)
    histogram = margin_histogram(margins)
    if histogram.on_grid:
        values = np.array(histogram.low)
        width = 0.85 * float(np.min(np.diff(values), initial=1.0))
        centres = values
    else:
        width = histogram.high[0] - histogram.low[0]
        centres = (np.array(histogram.low) + np.array(histogram.high)) / 2
    # rank decides what is hard, so a bar can be hard in part
    ends = np.cumsum(histogram.count)
    hard = np.clip(hard_pairs - (ends - histogram.count), 0, histogram.count)
    easy = np.array(histogram.count) - hard
    axes.bar(
        centres, hard, width, color=HARD, label=f"hard: {hard_pairs:,} ({_share(hard_pairs, len(margins)).strip()})"
    )
    axes.bar(centres, easy, width, bottom=hard, color=EASY, label=f"easy: {len(margins) - hard_pairs:,}")
    axes.set_ylabel("pairs")
    axes.set_ylim(0, 1.14 * max(histogram.count, default=1))
    _draw_threshold(axes, margins, threshold)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=2, borderpad=0.2)  # above the bars


def _draw_threshold(axes: Any, margins: NDArray[np.float64], threshold: Threshold) -> None:
    """The line at the threshold's own value; where pairs are counted, between the last hard and the first easy one."""
    hard_pairs, value = threshold.hard_pairs(margins), threshold.in_force
    below = "below" if threshold.tie_rule == "lt" else "up to"
    named = f"threshold: hard {below} {value:g}" if value is not None else f"threshold: the hardest {hard_pairs:,}"
    if value is None:
        if not 0 < hard_pairs < len(margins):
            return
        ascending = np.sort(margins)
        value = (ascending[hard_pairs - 1] + ascending[hard_pairs]) / 2
    low, high = axes.get_xlim()
    if not low <= value <= high:  # a line far away would make the bars thin
        way = ("right", 0.99, "\u2192") if value > high else ("left", 0.01, "\u2190")
        axes.annotate(
            f"{named} {way[2]}" if value > high else f"{way[2]} {named}",
            (way[1], 0.97), xycoords="axes fraction", ha=way[0], va="top", color=INK,
        )  # fmt: skip
        return
    axes.axvline(value, color=INK, linewidth=1, linestyle="--")
    left = value > low + 0.75 * (high - low)
    axes.annotate(
        f"{named} " if left else f" {named}",
        (value, 0.97), xycoords=("data", "axes fraction"), ha="right" if left else "left", va="top", color=INK,
    )  # fmt: skip


def _draw_shares(axes: Any, margins: NDArray[np.float64], metric: str) -> None:
    ascending, histogram = np.sort(margins), margin_histogram(margins)
    axes.step(ascending, 100 * np.arange(len(ascending)) / max(len(ascending), 1), where="post", color=HARD)
    if histogram.on_grid:  # at a margin of the grid itself the threshold still leaves that margin easy
        below = np.cumsum([0, *histogram.count[:-1]])
        axes.plot(histogram.low, 100 * below / len(ascending), "o", markersize=4, color=HARD)
    axes.set_xlabel(f"{metric or 'margin (chosen rating minus rejected rating)'}, or threshold")
    axes.set_ylabel("hard at this threshold, %")
    axes.set_ylim(0, 103)


def aligned_columns(lines: Sequence[Sequence[Any]], text_last: bool = False) -> str:
    """Numbers to the right, texts (the first column, and the last one where it is text) to the left."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in texts) for column in range(len(texts[0]))]
    left = {0, len(widths) - 1} if text_last else {0}
    padded = [
        [text.ljust(width) if column in left else text.rjust(width) for column, (text, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in texts)
    ]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):5.1f} %"


def _range(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _bar(count: int, most: int) -> str:
    """A pair too few to be seen is still shown."""
    return "█" * round(BAR_WIDTH * count / most) or ("▏" if count else "")
