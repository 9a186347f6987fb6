"""The run in one picture: losses, accuracy and chosen drift along the curriculum, and the margins that were trained."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.intervals import NORMAL, t95, wilson
from mixdpo_ray.training.evaluation import ACCURACY, DRIFT
from mixdpo_ray.training.judged_steps import JUDGEMENT
from mixdpo_ray.training.metric_names import JUDGE_METRICS, WIN_RATE, of_set, set_and_metric
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines

FURTHER = ("#8a5fbf", "#c99a2e", "#3f8f9f", "#a23b6b")  # of further held-out sets, in turn
TRAINED, HELD_OUT, JUDGED, MARGIN, INK = "#1b6ca8", "#c8553d", "#3b8a53", "#9aa1a9", "#555555"
MANY = 400  # steps, from which a thinner line keeps the held-out points visible
MetricsLine = Mapping[str, Any]
Errors = Callable[[MetricsLine, str], tuple[float, float] | None]  # below and above the value of a set


def draw_curves(run: str) -> None:
    """metrics.jsonl -> curves.png, in the run's folder."""
    storage.write_bytes(storage.join(run, "curves.png"), curves_png(run))


def curves_png(run: str) -> bytes:
    """The picture of the metrics.jsonl in the run's folder."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_lines(storage.join(run, STEP_METRICS))
    steps = [line for line in lines if "kind" not in line]
    evaluations = [line for line in lines if line.get("kind") == "eval"]
    panels = [
        *_losses(steps),
        ("preference accuracy", ACCURACY, _accuracy_error),
        ("chosen drift (nats)", DRIFT, _drift_error),
    ]
    sets = ["", *dict.fromkeys(name for line in evaluations for key in line if (name := set_and_metric(key)[0]))]
    judged = [line for line in lines if line.get("kind") == JUDGEMENT]
    measured = [name for name in JUDGE_METRICS if any(name in line for line in judged)]
    heights = [2.0] * (len(panels) + len(measured)) + [1.0]
    figure = Figure(figsize=(7.5, 0.95 * sum(heights) + 0.8), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (title, key, errors) in zip(axes, panels, strict=False):
        _trained(axis, steps, key)
        if errors is not None:
            for name, color in zip(sets, itertools.chain([HELD_OUT], itertools.cycle(FURTHER)), strict=False):
                _held_out(axis, evaluations, key, name, color, errors)
        axis.set_ylabel(title)
    for axis, name in zip(axes[len(panels) :], measured, strict=False):
        _judged(axis, [line for line in judged if name in line], name)
    _margins(axes[-1], steps)
    for axis in axes:
        _switches(axis, steps)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    _stage_names(axes[0], steps)
    _legend(figure, list(axes))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("step")
    figure.align_ylabels(list(axes))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    return picture.getvalue()


def _losses(steps: Sequence[MetricsLine]) -> list[tuple[str, str, Errors | None]]:
    """A panel for each loss that was trained: the preference loss and the SFT loss have scales of their own."""
    known = [("preference loss", "loss/easy"), ("loss of hard pairs", "loss/hard"), ("SFT loss", "loss/sft")]
    found: list[tuple[str, str, Errors | None]] = [
        (title, key, None) for title, key in known if any(line.get(key) is not None for line in steps)
    ]
    return found or [("loss", "loss", None)]


def _count(line: MetricsLine) -> int:
    """Which step a line is of, counted from 1 as on the console; an evaluation is at the steps that it came after."""
    return int(line["step"]) + 1


def _trained(axis: Any, steps: Sequence[MetricsLine], key: str) -> None:
    """A point where the line would have none, and no line over steps that have no such value."""
    width = 1.2 if len(steps) < MANY else 0.6
    for _, group in itertools.groupby(steps, key=lambda line: line.get(key) is not None):
        points = [(_count(line), line[key]) for line in group if line.get(key) is not None]
        if points:
            marker = "o" if len(points) == 1 else None
            axis.plot(
                *zip(*points, strict=True),
                label="training",
                color=TRAINED,
                marker=marker,
                markersize=3,
                linewidth=width,
            )


def _held_out(
    axis: Any, evaluations: Sequence[MetricsLine], measure: str, name: str, color: str, errors: Errors
) -> None:
    """The points of a set, each with its 95 % interval over the pairs; two points are no trend, and get no line."""
    key = of_set(f"eval_{measure}", name)
    found = [line for line in evaluations if line.get(key) is not None]
    if not found:
        return
    xs, ys = [line["step"] for line in found], [line[key] for line in found]
    bars = [errors(line, name) or (0.0, 0.0) for line in found]
    known = any(below or above for below, above in bars)
    pairs = _held_out_count(found[-1], name)
    counted, explained = f", {pairs:,} pairs" if pairs else "", " (bars: 95 % interval)" if known else ""
    label = f"held out{name and f': {name}'}{counted}{explained}"
    if len(found) > 2:
        axis.plot(xs, ys, color=color, linewidth=1, alpha=0.6, zorder=3)
    look = {"color": color, "markersize": 4.5, "capsize": 3, "elinewidth": 1.2, "zorder": 4}
    axis.errorbar(xs, ys, yerr=list(zip(*bars, strict=True)), fmt="o", label=label, **look)


def _judged(axis: Any, lines: Sequence[MetricsLine], name: str) -> None:
    """What a judge said of what checkpoints wrote, with 95 % intervals over prompts."""
    xs, ys = [line["step"] for line in lines], [line[name] for line in lines]
    counts, deviation = [line["judge/prompts"] for line in lines], name.replace("judge/", "judge/std/", 1)
    halves = [NORMAL * line.get(deviation, 0.0) / math.sqrt(n) for line, n in zip(lines, counts, strict=True)]
    if name == WIN_RATE:
        axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")  # no better than before training
    if len(lines) > 2:
        axis.plot(xs, ys, color=JUDGED, linewidth=1, alpha=0.6, zorder=3)
    label = f"judged, {counts[-1]:,.0f} prompts (bars: 95 % interval)"
    axis.errorbar(xs, ys, yerr=halves, fmt="o", label=label, color=JUDGED, markersize=4.5, capsize=3, zorder=4)
    axis.set_ylabel("win rate by the judge" if name == WIN_RATE else "quality by the judge")


def _accuracy_error(line: MetricsLine, name: str) -> tuple[float, float] | None:
    share, pairs = line[of_set(f"eval_{ACCURACY}", name)], _held_out_count(line, name)
    if not pairs:
        return None
    low, high = wilson(share, pairs)
    return max(0.0, share - low), max(0.0, high - share)


def _drift_error(line: MetricsLine, name: str) -> tuple[float, float] | None:
    deviation, pairs = line.get(of_set(f"eval_std/{DRIFT}", name)), _held_out_count(line, name)
    if deviation is None or pairs < 2:
        return None
    half = t95(pairs - 1) * deviation / math.sqrt(pairs)
    return half, half


def _held_out_count(line: MetricsLine, name: str) -> int:
    counted = of_set("eval_pairs/", name)
    return int(sum(value for metric, value in line.items() if metric.startswith(counted)))


def _margins(axis: Any, steps: Sequence[MetricsLine]) -> None:
    """The range of margins of each step that has pairs, in a panel of its own."""
    steps = [line for line in steps if "data_margin/min" in line]
    xs = [_count(line) for line in steps]
    low, high = ([line[f"data_margin/{end}"] for line in steps] for end in ("min", "max"))
    axis.fill_between(xs, low, high, color=MARGIN, alpha=0.55, step="mid", linewidth=0)
    axis.step(xs, high, where="mid", color=MARGIN, linewidth=1)  # also where all pairs of a step have one margin
    axis.set_ylabel("margins")


def _switches(axis: Any, steps: Sequence[MetricsLine]) -> None:
    for before, after in itertools.pairwise(steps):
        if before["stage"] != after["stage"]:
            axis.axvline(_count(after) - 0.5, color=INK, linestyle="--", linewidth=0.8, zorder=1)


def _stage_names(axis: Any, steps: Sequence[MetricsLine]) -> None:
    """Above the first panel, where no curve runs; not where stages alternate, as their names would meet."""
    names = {"easy": "preference", "hard": "hard pairs", "mixed": "both losses"}
    runs = [(stage, list(group)) for stage, group in itertools.groupby(steps, key=lambda line: line["stage"])]
    if not 1 < len(runs) <= 4:
        return
    for stage, group in runs:
        axis.annotate(
            names.get(stage, stage), (_count(group[0]), 1.02), xycoords=("data", "axes fraction"), va="bottom",
            color=INK, fontsize=9,
        )  # fmt: skip


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """One for all panels, below them."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    by_label = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
    for label in [one for one in by_label if any(other.startswith(f"{one} (") for other in by_label)]:
        del by_label[label]  # of a panel whose points have no bars
    if by_label:
        figure.legend(
            by_label.values(),
            by_label.keys(),
            loc="outside upper right",
            ncols=min(len(by_label), 2 if any(": " in label for label in by_label) else 3),
            frameon=False,
            fontsize=9,
        )
