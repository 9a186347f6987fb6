"""What a person watches of a search: a table of its trials on a terminal, a line per event elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mixdpo_ray.recipe.measure import Measure
from mixdpo_ray.search.trials import TrialRow, best
from mixdpo_ray.wording import clock_text

STYLES = {"RUNNING": "bold", "COMPLETE": "green", "PRUNED": "dim", "FAIL": "red"}


@dataclass
class Line:
    number: int
    settings: Mapping[str, Any]
    began: float
    state: str = "RUNNING"
    doing: str = "starting"
    budget: int = 0  # of the last finished rung
    score: float | None = None
    seconds: float | None = None
    reason: str = ""


@dataclass
class StudyDisplay:
    name: str
    metrics: Sequence[Measure]
    budgets: Sequence[int]
    epochs: int
    wanted: int
    ended: list[TrialRow]  # of the study before; and of this call, as they come
    lines: dict[int, Line] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    finished: int = 0

    def __post_init__(self) -> None:
        self.console = Console(stderr=True)
        self.lock = threading.RLock()  # trials end in one thread, steps arrive in another

    def tell(self, event: str, number: int, content: Any) -> None:
        with self.lock:
            if event == "start":
                self.lines[number] = Line(number, content, time.monotonic())
                self._say(number, f"started: {shown_setting(content)}")
            elif event == "rung":
                line = self.lines[number]
                line.budget, line.score = content
                self._say(number, f"rung {self.rung(line.budget)}: {line.score:.4f}")
            elif event == "end":
                self._end(content)

    def hear(self, number: int, kind: str, content: Any) -> None:
        """Take in what a trial's workers tell."""
        with self.lock:
            line = self.lines.get(number)
            if line is None:
                return
            if kind == "step":
                epochs = line.settings.get("train.num_train_epochs", self.epochs)
                line.doing = f"{content['stage']} {content['epoch'] / epochs:.0%}"
            elif kind == "phase" and not content.startswith("stage"):
                line.doing = content
            elif kind == "warning":
                self.console.print(f"trial {number}: warning: {content}", highlight=False, markup=False, soft_wrap=True)

    def rung(self, budget: int) -> str:
        """Which rung of how many a trial has reached."""
        done = sum(one <= budget for one in self.budgets)
        return f"{done}/{len(self.budgets)}"

    @property
    def best(self) -> TrialRow | None:
        return best(self.ended, self.metrics)

    def head(self) -> str:
        best, parts = self.best, [f"{self.name}: {self.finished} of {self.wanted} trials ended"]
        if best is not None:
            values = ", ".join(f"{value:.4f}" for value in best.values)
            parts.append(f"best {values} (trial {best.number})")
        if self.finished and self.finished < self.wanted:
            seconds = (time.monotonic() - self.began) / self.finished * (self.wanted - self.finished)
            parts.append(f"ETA {clock_text(seconds)}")
        return "  ".join(parts)

    def table(self) -> Table:
        with self.lock:
            table = Table(title=self.head(), title_justify="left", title_style="bold", box=None, pad_edge=False)
            table.expand = True  # without it Rich takes room from the short columns first
            score = self.metrics[0].name.removeprefix("eval_").rpartition("/")[2]
            shares = {"now": 1, "settings": 2}  # of what the others leave
            for head in ("trial", "state", "rung", "now", score, "time", "settings"):
                right = head in ("trial", "time")
                table.add_column(head, no_wrap=True, justify="right" if right else "left", ratio=shares.get(head))
            for line in self._visible():
                table.add_row(*self._cells(line), style=STYLES.get(line.state, ""))
        return table

    def _visible(self) -> list[Line]:
        """What runs, and of what has ended the newest, as many as there is room for."""
        room = max(5, self.console.height - 4)
        running = [line for line in self.lines.values() if line.state == "RUNNING"]
        ended = [line for line in self.lines.values() if line.state != "RUNNING"]
        kept = ended[-max(0, room - len(running)) :] if room > len(running) else []
        return sorted([*kept, *running], key=lambda line: line.number)

    def _cells(self, line: Line) -> list[Text | str]:
        seconds = line.seconds if line.seconds is not None else time.monotonic() - line.began
        now = line.doing if line.state == "RUNNING" else line.reason
        score = "" if line.score is None else f"{line.score:.4f}"
        rung, took, settings = self.rung(line.budget), clock_text(seconds), shown_setting(line.settings)
        cells = [f"{line.number}", line.state, rung, now, score, took, settings]
        return [Text(cell) for cell in cells]  # plain: brackets in a reason are no markup

    def _end(self, row: TrialRow) -> None:
        self.finished += 1
        self.ended.append(row)
        line = self.lines[row.number]
        line.state, line.reason = row.state, row.reason
        line.seconds = time.monotonic() - line.began
        if row.values:
            line.score, line.budget = row.values[0], self.budgets[-1]
        self._say(row.number, f"{row.state}{f': {row.reason}' if row.reason else ''}   {self.head()}")

    def _say(self, number: int, text: str) -> None:
        if not self.console.is_terminal:
            print(f"trial {number}: {text}", file=sys.stderr, flush=True)


def shown_setting(settings: Mapping[str, Any]) -> str:
    """Short names are enough between people who wrote the space."""
    values = (f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in settings.values())
    return "  ".join(f"{name.rsplit('.', 1)[-1]} {value}" for name, value in zip(settings, values, strict=True))


@contextmanager
def showing(display: StudyDisplay, run_actor: Any) -> Iterator[None]:
    """Draw while the body runs, with what the run's actor has heard from the workers."""
    finished = threading.Event()

    def draw() -> None:
        for kind, (number, content) in ray.get(run_actor.take.remote()):
            display.hear(number, kind, content)

    def follow() -> None:
        while not finished.wait(0.5):
            draw()

    live = Live(get_renderable=display.table, console=display.console, refresh_per_second=2, transient=False)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        if display.console.is_terminal:
            with live:
                yield
        else:
            yield
    finally:
        finished.set()
        thread.join()
