"""The closing lines of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.evaluation.judged_model import metrics_in_words
from mixdpo_ray.intervals import wilson
from mixdpo_ray.training.metric_names import metric_in_words, of_set
from mixdpo_ray.wording import duration_text

ACCURACY = "eval_rewards/accuracies"
FEW_HELD_OUT = 30  # held-out pairs: below, the interval of an accuracy is wider than a third
SHOWN = (ACCURACY, "eval_rewards/margins", "eval_logps/chosen_drift")


@dataclass(frozen=True)
class RunReport:
    folder: str  # as the person wrote it
    summary: Mapping[str, Any]
    already_finished: bool = False
    pushed: str | None = None  # where its model is on the Hub

    def describe(self) -> str:
        summary, folder, after = self.summary, self.folder, self.summary["eval_after"]
        head = "was already finished" if self.already_finished else f"finished in {duration_text(summary['seconds'])}"
        lines = [f"{folder} {head}: {summary['steps']} steps, {_trained(summary)}"]
        found = [key for key in SHOWN if after.get(key) is not None]
        lines += [f"  {metric_in_words(key):<30} {_course(summary, key, held_out_count(summary))}" for key in found]
        lines += _further_sets(summary)
        if pairs := held_out_count(summary):
            few = ", which are few" if pairs < FEW_HELD_OUT else ""
            lines.append(
                f"  (low to high), or ± half of it, is a 95 % interval over {pairs:,} held-out pairs{few}; another "
                "seed may move it further"
            )
        if judged := summary.get("judged"):
            lines.append(f"  judged                         {metrics_in_words(judged)}")
        lines.append(f"  peak memory of a worker        {summary['peak_memory_gib']:8.2f} GiB")
        lines.append(f"  {exported_as(summary):<30} {folder}/{exported_as(summary)}")
        if self.pushed:
            lines.append(f"  pushed to                      {self.pushed}")
        lines.append(f"  picture                        {folder}/curves.png")
        if warning := summary.get("warning"):  # earlier versions had none
            lines.append(f"warning: {warning}")
        return "\n".join(lines)


def exported_as(summary: Mapping[str, Any]) -> str:
    """The name of the folder, in that of the run, with what was exported: model, or adapter where that is alone."""
    return str(summary.get("model") or "model").rstrip("/").rpartition("/")[2]


def _trained(summary: Mapping[str, Any]) -> str:
    rows = summary.get("sft_rows")
    return f"{summary['pairs']} pairs{f', {rows} rows of data.sft' if rows else ''}"


def held_out_count(summary: Mapping[str, Any]) -> int:
    """How many held-out pairs there were; 0 where it is not known."""
    known = summary.get("held_out") or {}
    counts = (value for name, value in summary["eval_after"].items() if name.startswith("eval_pairs/"))
    return int(known.get("pairs") or sum(counts))


def _further_sets(summary: Mapping[str, Any]) -> list[str]:
    """The accuracy of each further held-out set."""
    counts = ((summary.get("held_out") or {}).get("sets") or {}).items()
    return [
        f"  {metric_in_words(metric):<30} {_course(summary, metric, pairs)}"
        for name, pairs in counts
        if (metric := of_set(ACCURACY, name)) in summary["eval_after"]
    ]


def _course(summary: Mapping[str, Any], key: str, pairs: int) -> str:
    """A measure before and after, and its change pair by pair with the error that the draw of the pairs gives it."""
    before, after = summary["eval_before"][key], summary["eval_after"][key]
    line = f"{_rounded(before):8.3f} -> {_rounded(after):.3f}" + (f" of {pairs:,} pairs" if pairs else "")
    if key.endswith("rewards/accuracies") and pairs:  # as in curves.png and in a search's page
        low, high = wilson(after, pairs)
        line += f" ({low:.3f} to {high:.3f})"
    halves = ((summary.get("held_out") or {}).get("half_intervals") or {}).get(key)
    if halves is None:  # of an earlier version: without the pairs' own values the change has no error
        return line
    equal = ", all equal" if pairs > 1 else ""  # which tells nothing of their error
    own = equal if halves["after"] is None else f", ± {halves['after']:.3f}"
    own = "" if key.endswith("rewards/accuracies") else own
    change, half = after - before, halves["change"] or math.inf
    if math.isinf(half):
        return f"{line}{own}"
    return f"{line}{own}; change {change:+.3f} ± {half:.3f}{'' if abs(change) > half else ', perhaps chance'}"


def _rounded(value: float) -> float:
    """What is shown of a value, and never -0.000."""
    return round(value, 3) + 0.0
