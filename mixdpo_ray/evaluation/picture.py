"""evaluations/<name>/evaluation.png: every arm's score with its interval, and beside it how long its answers are."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.evaluation.results import EvaluatedArm, EvaluatedBenchmark, EvaluationResults
from mixdpo_ray.evaluation.score_names import SCORE_WORDS, even_score, score_of_category, score_parts

INK, MIDDLE, REFERENCE = "#444444", "#8a929c", "#c8553d"
SCORE_COLOR, LENGTH_COLOR = "#1b6ca8", "#7c8793"
LONGEST_NAME = 28


@dataclass(frozen=True)
class PictureRow:
    """One score of all arms of a benchmark."""

    title: str
    category: str
    plain: str
    name: str
    arms: Sequence[EvaluatedArm]

    def length(self, arm: EvaluatedArm, what: str = "average_length") -> BenchmarkScore | None:
        return arm.scores.get(score_of_category(self.category, what), arm.scores.get(what))


def evaluation_picture(results: EvaluationResults) -> bytes:
    """Left the scores, right the lengths; a row for each score that arms are compared by."""
    from matplotlib.figure import Figure

    rows = [row for benchmark in results.benchmarks for row in _rows(benchmark)]
    heights = [0.8 + len(row.arms) for row in rows] or [1.0]
    figure = Figure(figsize=(8.6, 1.0 + 0.42 * sum(heights) + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots(max(1, len(rows)), 2, squeeze=False, height_ratios=heights, width_ratios=(3, 2))
    for row, (scores, lengths) in zip(rows, axes, strict=False):
        _draw_scores(scores, row)
        _draw_lengths(lengths, row)
    if not rows:
        axes[0, 0].set_title("nothing was judged")
    figure.supxlabel("bars: 95 % intervals over prompts; dashed: equal arms, or the reference's length", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, dpi=144, format="png")
    return file.getvalue()


def _rows(benchmark: EvaluatedBenchmark) -> Iterator[PictureRow]:
    for name in benchmark.headlines or (benchmark.main,):
        category, plain = score_parts(name, benchmark.main)
        where = f"{benchmark.name}, {category}" if category else benchmark.name
        yield PictureRow(f"{where}: {SCORE_WORDS.get(plain, plain)}", category, plain, name, benchmark.arms)


def _draw_scores(axis: Any, row: PictureRow) -> None:
    _prepare(axis, row, row.title)
    for height, arm in enumerate(row.arms):
        score = arm.scores.get(row.name)
        if score is None:
            axis.annotate(
                "no score", (0.02, height), xycoords=("axes fraction", "data"), va="center", color=INK, size=8
            )
        else:
            _draw(axis, height, score, SCORE_COLOR)
    if (middle := even_score(row.plain)) is not None and _has(row):
        axis.axvline(middle, color=MIDDLE, linewidth=0.8, linestyle="--", zorder=2)


def _draw_lengths(axis: Any, row: PictureRow) -> None:
    if not any(map(row.length, row.arms)):
        axis.set_axis_off()
        return
    _prepare(axis, row, "length, characters")
    axis.set_yticklabels([])
    for height, arm in enumerate(row.arms):
        if (length := row.length(arm)) is not None:
            axis.barh(height, length.value, height=0.5, color=LENGTH_COLOR, alpha=0.5)
    for reference in [found for arm in row.arms if (found := row.length(arm, "baseline_length"))][:1]:
        axis.axvline(reference.value, color=REFERENCE, linewidth=1, linestyle="--")
    axis.set_xlim(left=0)


def _has(row: PictureRow) -> bool:
    return any(row.name in arm.scores for arm in row.arms)


def _prepare(axis: Any, row: PictureRow, title: str) -> None:
    """Names are text: a dollar sign begins no formula."""
    names = [arm.name if len(arm.name) <= LONGEST_NAME else f"{arm.name[: LONGEST_NAME - 1]}…" for arm in row.arms]
    axis.set_title(title, fontsize=9.5, loc="left", color=INK, parse_math=False)
    axis.set_yticks(range(len(names)))
    axis.set_yticklabels(names, parse_math=False)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.margins(x=0.07)
    axis.locator_params(axis="x", nbins=5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#e6e8eb", linewidth=0.8)
    axis.set_axisbelow(True)


def _draw(axis: Any, height: int, score: BenchmarkScore, color: str) -> None:
    """The value is a short stroke across the bar: a dot would hide an interval that is narrower than itself."""
    if math.isfinite(score.low) and math.isfinite(score.high):
        interval = [score.low, score.high]
        axis.plot(interval, [height] * 2, color=color, linewidth=6, alpha=0.35, solid_capstyle="butt", zorder=3)
        axis.plot(interval, [height] * 2, "|", color=color, markersize=10, markeredgewidth=1.2, zorder=3)
    axis.plot(score.value, height, "|", color=color, markersize=14, markeredgewidth=2.4, zorder=4)
