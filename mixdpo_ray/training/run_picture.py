"""The run in one picture: loss, accuracy and chosen drift along the curriculum, with the margins that were trained."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines

CHOSEN, REJECTED, MARGIN = "#1b6ca8", "#c8553d", "#b8b8b8"


def draw_curves(run: str) -> None:
    """metrics.jsonl -> curves.png, in the run's folder."""
    lines = read_lines(storage.join(run, STEP_METRICS))
    steps = [line for line in lines if line.get("kind") != "eval"]
    evaluations = [line for line in lines if line.get("kind") == "eval"]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    panels = [
        ("loss", "loss", None),
        ("preference accuracy", "rewards/accuracies", "eval_rewards/accuracies"),
        ("chosen drift (nats)", "logps/chosen_drift", "eval_logps/chosen_drift"),
    ]
    for axis, (title, key, eval_key) in zip(axes, panels, strict=True):
        _line(axis, steps, key, "training", CHOSEN, marker=None)
        if eval_key:
            _line(axis, evaluations, eval_key, "held out", REJECTED, marker="o")
        axis.set_ylabel(title)
        _margins(axis, steps)
        _switches(axis, steps)
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(handles)}  # on no curve
            axis.legend(handles, labels, frameon=False, **above)
    axes[-1].set_xlabel("step")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    storage.write_bytes(storage.join(run, "curves.png"), picture.getvalue())


def _line(axis: Any, lines: Sequence[dict[str, Any]], key: str, label: str, color: str, marker: str | None) -> None:
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, color=color, marker=marker, linewidth=1.3, zorder=3)


def _margins(axis: Any, steps: Sequence[dict[str, Any]]) -> None:
    """The range of margins of each step, in grey on the right."""
    right = axis.twinx()
    xs = [line["step"] for line in steps]
    low, high = ([line[f"data_margin/{end}"] for line in steps] for end in ("min", "max"))
    right.fill_between(xs, low, high, color=MARGIN, alpha=0.35, step="mid")
    right.step(xs, low, where="mid", color=MARGIN, linewidth=1)
    right.set_ylabel("margin of the pairs", color="#8a8a8a")
    axis.set_zorder(right.get_zorder() + 1)
    axis.patch.set_visible(False)


def _switches(axis: Any, steps: Sequence[dict[str, Any]]) -> None:
    for before, after in itertools.pairwise(steps):
        if before["stage"] != after["stage"]:
            axis.axvline(after["step"] - 0.5, color="black", linestyle="--", linewidth=1)
            axis.annotate(
                "SFT" if after["stage"] == "hard" else after["stage"],
                (after["step"], 0.97), xycoords=("data", "axes fraction"), va="top",
            )  # fmt: skip
