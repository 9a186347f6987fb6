"""What a person watches of a comparison: one bar over the steps of all arms on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixdpo_ray.bar import SECONDS_BETWEEN_LINES, Bar, Pace
from mixdpo_ray.cluster.events import Event, JobEnded, Noted, PhaseBegan, StepTaken, Warned
from mixdpo_ray.comparison.job_sequence import RecordedJob


class CompareDisplay:
    """Progress of the jobs that are left, beside those that have ended; `on_end` is called whenever another one has."""

    def __init__(self, name: str, jobs: Sequence[RecordedJob], ended: int, on_end: Callable[[], None]):
        self.name, self.on_end = name, on_end
        self.total, self.ended = ended + len(jobs), ended
        self.steps = {job.label: job.steps for job in jobs}
        self.done = dict.fromkeys(self.steps, 0)
        self.all_steps = sum(self.steps.values())
        self.bar, self.pace = Bar(name, "step", self.all_steps, stays=True), Pace()
        self.last_line = -math.inf

    def __enter__(self) -> CompareDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, event: Event) -> None:
        match event:
            case StepTaken():
                self._step(str(event.job))
            case Warned(text):
                self._say(f"{event.job}: warning: {text}")
            case JobEnded():
                self._end(event)
            case Noted(text):
                self._say(f"{event.job}: {text}")
            case PhaseBegan(text) if event.job is None:
                self._say(text, meanwhile=f"{self.name}: {text}")
            case PhaseBegan(text):
                self._show(f"{event.job}: {text}", meanwhile=f"{self.name}: {event.job}: {text}")

    def _say(self, text: str, meanwhile: str = "") -> None:
        self.bar.say(f"{self.name}: {text}", meanwhile)

    def _step(self, label: str) -> None:
        self._reach(label, min(self.steps[label], self.done[label] + 1))

    def _end(self, event: JobEnded) -> None:
        label = str(event.job)
        self.ended += 1
        self._reach(label, self.steps[label])
        said = f"failed: {event.failure}" if event.summary is None else _said(event.summary)
        left = self.pace.eta(self.all_steps) if self.pace.done < self.all_steps else ""
        self._say(f"{self.ended} of {self.total} ended: {label}: {said}{'  ' if left else ''}{left}")
        self.on_end()

    def _reach(self, label: str, done: int) -> None:
        if done > self.done[label]:
            self.done[label] = done
            self.pace.reach(sum(self.done.values()))
        self._show(label)

    def _show(self, doing: str, meanwhile: str = "") -> None:
        done, eta = self.pace.done, self.pace.eta(self.all_steps)
        self.bar.show(self.name, done, self.all_steps, doing, eta, meanwhile=meanwhile)
        now = time.monotonic()
        if not self.bar.on_terminal and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            self._say("  ".join(filter(None, [f"{doing}, {done}/{self.all_steps} steps", eta])), meanwhile)


def _said(summary: Mapping[str, Any]) -> str:
    parts = [f"{name} {value:.3f}" for name, value in summary.get("judged", {}).items()]
    accuracy = summary["eval_after"].get("eval_rewards/accuracies")
    parts += [] if accuracy is None else [f"accuracy {accuracy:.3f}"]
    return ", ".join([*parts, f"{summary['seconds']:.1f} s"])
