"""Sums until the edge divides them, and the file with one line per optimizer step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray import storage
from mixdpo_ray.curriculum.plan import Plan, Window, window_hash
from mixdpo_ray.tables.index import Index
from mixdpo_ray.training.idle_gradient import IdleGradient
from mixdpo_ray.training.window_shares import WindowTotals
from mixdpo_ray.training.world import World

STEP_METRICS = "metrics.jsonl"
CHECKPOINT_SECONDS = "perf/checkpoint_seconds"  # that steps have waited
# What a step sums over pairs and ranks; every one is divided by a count that is known from the window.
SUMS = (
    "loss", "loss/easy", "loss/hard", "loss/sft", "logps/chosen", "logps/rejected",
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen_drift", "loss/router",
)  # fmt: skip


def reduce_sums(sums: Tensor, world: World) -> dict[str, float]:
    """The one reduction, and the one wait for the device, of a step's metrics."""
    if world.size > 1:
        dist.all_reduce(sums)
    return dict(zip(SUMS, sums.tolist(), strict=True))


def step_metrics(sums: Mapping[str, float], totals: WindowTotals, *, has_reference: bool) -> dict[str, float]:
    """Means per pair. What no pair of the window has is left out."""
    metrics = {"loss": sums["loss"], "logps/chosen": sums["logps/chosen"] / totals.pairs}
    if totals.hard_pairs:
        metrics["loss/hard"] = sums["loss/hard"] / totals.hard_pairs
    if totals.hard:  # its weights are a mean already
        metrics["loss/sft" if totals.hard_pairs else "loss/hard"] = sums["loss/sft"]
    if totals.easy:
        means = ("loss/easy", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/accuracies")
        metrics.update({name: sums[name] / totals.easy for name in means})
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
        if has_reference:
            metrics["logps/chosen_drift"] = sums["logps/chosen_drift"] / totals.easy
    if sums["loss/router"]:  # of a mixture of experts: of the whole window, without its coefficient
        metrics["loss/router"] = sums["loss/router"]
    return metrics


def speed_metrics(totals: WindowTotals, seconds: float, waited: float) -> dict[str, float]:
    """How fast a step was. Tokens are those of the sequences, each with its prompt, whatever of them was run once."""
    return {
        "perf/seconds": seconds,
        "perf/pairs_per_second": totals.pairs / seconds,
        "perf/tokens_per_second": totals.tokens / seconds,
        "perf/data_wait_fraction": waited / seconds,
        "perf/padding_fraction": totals.padding / totals.computed,
        "perf/shared_fraction": totals.shared / totals.tokens,
    }


def window_facts(window: Window, plan: Plan, index: Index, epochs: int) -> dict[str, Any]:
    """What a step is, before it is run."""
    pairs = window.positions < len(plan.hard)
    margins: NDArray[np.float64] = index.margin[window.positions[pairs]]
    hard = int(np.count_nonzero(window.hard & pairs))
    facts = {
        "step": window.step,
        "stage": window.stage,
        "epoch": epochs * (window.step + 1) / plan.steps,
        "pairs/easy": len(margins) - hard,
        "pairs/hard": hard,
        **({"data_margin/min": float(margins.min()), "data_margin/max": float(margins.max())} if len(margins) else {}),
        "window_hash": window_hash([index.pair_id[position] for position in window.positions]),
    }
    return facts if pairs.all() else facts | {"rows/sft": int(np.count_nonzero(~pairs))}


class MetricsLog:
    """metrics.jsonl of a run, written by rank 0: appended locally, sent with each checkpoint if storage is remote."""

    def __init__(self, run: str, step: int):
        """Continue at `step`: lines of it and later ones, left by a killed run, are cut."""
        self.target = storage.join(run, STEP_METRICS)
        self.remote = not storage.is_local(run)
        # what was measured after k steps belongs to the checkpoint of k steps; at the start there is none
        before = read_lines(self.target) if step else []
        kept = [line for line in before if line["step"] < step + ("kind" in line)]
        self.before = kept
        self.first_evaluation: dict[str, Any] | None = next((line for line in kept if line.get("kind") == "eval"), None)
        self.gradient = IdleGradient(kept)
        if self.remote:
            self._scratch = tempfile.TemporaryDirectory(prefix="mixdpo-metrics-")
            self.path = Path(self._scratch.name) / STEP_METRICS
        else:
            self.path = storage.local(self.target)
        write_lines(str(self.path), kept)

    def append(self, metrics: Mapping[str, Any]) -> None:
        if metrics.get("kind") == "eval" and self.first_evaluation is None:
            self.first_evaluation = dict(metrics)
        with storage.explained(str(self.path)), self.path.open("a") as file:
            file.write(_line(metrics))

    def upload(self) -> None:
        """Send the lines that are there, in any thread; half a line at the end counts for nobody."""
        if self.remote:
            storage.write_bytes(self.target, self.path.read_bytes())


def _line(metrics: Mapping[str, Any]) -> str:
    return json.dumps(dict(metrics), allow_nan=False) + "\n"


def write_lines(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    storage.write_bytes(path, "".join(map(_line, lines)).encode())


def read_lines(path: str) -> Sequence[dict[str, Any]]:
    """Whole lines; a kill can leave half a line at the end, and only there."""
    if not storage.exists(path):
        return []
    whole, _, _ = storage.read_bytes(path).rpartition(b"\n")
    return [json.loads(line) for line in whole.split(b"\n") if line]
