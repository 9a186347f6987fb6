"""What a person watches of a comparison: one bar over the steps of all arms on a terminal, a line per arm elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from mixdpo_ray.comparison.job_sequence import RecordedJob
from mixdpo_ray.wording import clock_text


class CompareDisplay:
    """Progress of the jobs that are left, beside those that have ended; `on_end` is called whenever another one has."""

    def __init__(self, name: str, jobs: Sequence[RecordedJob], ended: int, on_end: Callable[[], None]):
        self.name, self.on_end = name, on_end
        self.total, self.ended = ended + len(jobs), ended
        self.steps = {job.label: job.steps for job in jobs}
        self.done = dict.fromkeys(self.steps, 0)
        self.began: float | None = None
        self.bar = tqdm(
            total=sum(self.steps.values()), desc=name, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def show(self, kind: str, content: Any) -> None:
        if isinstance(content, str):
            self.line(content)
            return
        label, *rest = content
        if kind == "step":
            self._step(label)
        elif kind == "warning":
            self.line(f"{label}: warning: {rest[0]}")
        elif kind == "ended":
            self._end(label, *rest)

    def line(self, text: str) -> None:
        tqdm.write(f"{self.name}: {text}", file=sys.stderr)

    def close(self) -> None:
        self.bar.close()

    def _step(self, label: str) -> None:
        self.began = self.began or time.monotonic()
        self.done[label] = min(self.steps[label], self.done[label] + 1)
        self.bar.n = sum(self.done.values())
        self.bar.set_postfix_str(label, refresh=True)

    def _end(self, label: str, well: bool, content: str) -> None:
        self.ended += 1
        self.done[label] = self.steps[label]
        said = _said(json.loads(content)) if well else f"failed: {content}"
        self.line(f"{self.ended} of {self.total} ended: {label}: {said}{self._eta()}")
        self.on_end()

    def _eta(self) -> str:
        done, left = sum(self.done.values()), sum(self.steps.values()) - sum(self.done.values())
        if self.began is None or not done or not left:
            return ""
        seconds = (time.monotonic() - self.began) / done * left
        return f"  ETA {clock_text(seconds)}"


def _said(summary: dict[str, Any]) -> str:
    parts = [f"{name} {value:.3f}" for name, value in summary.get("judged", {}).items()]
    accuracy = summary["eval_after"].get("eval_rewards/accuracies")
    parts += [] if accuracy is None else [f"accuracy {accuracy:.3f}"]
    return ", ".join([*parts, f"{summary['seconds']:.1f} s"])
