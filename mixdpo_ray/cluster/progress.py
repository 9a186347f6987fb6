"""What a person watches of trainings: the driver draws what workers told the run's actor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import ray

from mixdpo_ray.bar import SECONDS_BETWEEN_LINES, Bar, Pace
from mixdpo_ray.cluster.events import Evaluated, Event, Noted, PhaseBegan, StepTaken, Warned

QUIET_LOOKS = 20  # 6 s without a word: a node may have died


class Display(Protocol):
    def show(self, event: Event) -> None: ...


@contextmanager
def watching(run_actor: Any, display: Display, missing: Callable[[], str] = str) -> Iterator[None]:
    """Show what the run's actor hears while the body runs; where it hears nothing, what the cluster lacks."""
    finished = threading.Event()

    def draw() -> bool:
        events = ray.get(run_actor.take.remote())
        for event in events:
            display.show(event)
        return bool(events)

    def follow() -> None:
        quiet = 0
        while not finished.wait(0.3):
            quiet = 0 if draw() else quiet + 1
            if quiet and quiet % QUIET_LOOKS == 0 and (lacking := missing()):
                display.show(PhaseBegan(f"waiting for {lacking}"))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        draw()


class TrainingDisplay:
    """One training: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, steps: int):
        self.title, self.steps = title, steps
        self.bar, self.pace = Bar(title, "step", steps, stays=True), Pace()
        self.phase, self.last_line, self.accuracy = "", -math.inf, None

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, event: Event) -> None:
        match event:
            case StepTaken(metrics):
                self._step(metrics)
            case Evaluated(metrics):
                self.accuracy = metrics.get("eval_rewards/accuracies", self.accuracy)
            case PhaseBegan(text) if text != self.phase:
                self._phase(text)
            case Noted(text):
                self.bar.say(f"{self.title}: {text}")
            case Warned(text):
                self.bar.say(f"warning: {text}")

    def _phase(self, text: str) -> None:
        self.phase = text
        self.bar.show(f"{self.title}: {text}", self.pace.done, self.steps)
        if not self.bar.on_terminal:
            self.bar.say(f"{self.title}: {text}", meanwhile=f"{self.title}: {text}")

    def _step(self, metrics: Mapping[str, Any]) -> None:
        done, title = metrics["step"] + 1, f"{self.title}: {metrics['stage']}"
        self.pace.reach(done)
        values = "  ".join(f"{name} {value}" for name, value in self._measured(metrics).items())
        eta = self.pace.eta(self.steps)
        self.bar.show(title, done, self.steps, values, eta)
        now = time.monotonic()
        if not self.bar.on_terminal and (now - self.last_line > SECONDS_BETWEEN_LINES or done == self.steps):
            self.last_line = now
            self.bar.say(f"{title} {done}/{self.steps}  {values}  {eta}".rstrip())

    def _measured(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        """What a person watches for first: a narrow terminal has no room for the last ones."""
        shown = {}
        if metrics.get("rewards/accuracies") is not None:
            shown["accuracy"] = f"{metrics['rewards/accuracies']:.2f}"
        if self.accuracy is not None:
            shown["held out"] = f"{self.accuracy:.3f}"
        return {**shown, "loss": f"{metrics['loss']:.4f}", "pairs/s": f"{metrics['perf/pairs_per_second']:.1f}"}


class DisplayInTurn:
    """A bar for each of several trainings, which come one after the other; `steps` by the names of their jobs."""

    def __init__(self, steps: Mapping[str, int]):
        self.steps = steps
        self.title = next(iter(steps))
        self.display = TrainingDisplay(self.title, steps[self.title])

    def __enter__(self) -> DisplayInTurn:
        return self

    def __exit__(self, *_: object) -> None:
        self.display.bar.close()

    def show(self, event: Event) -> None:
        if event.job not in (None, self.title):  # None: of all of them, as what the cluster lacks
            self.display.bar.close()
            self.title = str(event.job)
            self.display = TrainingDisplay(self.title, self.steps[self.title])
        self.display.show(event)
