"""What a person watches of a search: a table of its trials on a terminal, a line per event elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from mixdpo_ray.bar import SECONDS_BETWEEN_LINES, begin_drawing, draws_on, going_on, live_table, say, stderr_console
from mixdpo_ray.cluster.events import Event, Noted, PhaseBegan, StepTaken, Warned
from mixdpo_ray.recipe.measure import Measure
from mixdpo_ray.search.optuna_search import RungEnded, TrialBegan, TrialEnded
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
    last_line: float = -math.inf

    def __post_init__(self) -> None:
        self.before = sum(row.state != "INTERRUPTED" for row in self.ended)
        self.console = stderr_console()
        self.lock = threading.RLock()  # trials end in one thread, steps arrive in another
        self.live = live_table(self.table, self.console)

    def __enter__(self) -> StudyDisplay:
        if draws_on(self.console):
            begin_drawing(self.live)
        else:
            going_on(f"{self.name}: starting the first trial")
        return self

    def __exit__(self, *_: object) -> None:
        going_on()
        self.live.stop()

    def show(self, event: Event) -> None:
        number = event.job
        if isinstance(event, Warned | Noted) or not isinstance(number, int):  # without the lock: Rich may wait to draw
            self._tell(event)
            return
        with self.lock:
            if isinstance(event, TrialBegan):
                self.lines[number] = Line(number, event.settings, time.monotonic())
                self._say(number, f"started: {shown_setting(event.settings)}", meanwhile="starting")
            elif number in self.lines:
                self._show(self.lines[number], event)

    def _tell(self, event: Event) -> None:
        """A line that stays, of a trial or of all of them."""
        if isinstance(event, Warned | Noted | PhaseBegan) and (event.job is None or event.job in self.lines):
            whose = self.name if event.job is None else f"trial {event.job}"
            said = f"{whose}: {'warning: ' if isinstance(event, Warned) else ''}{event.text}"
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)

    def _show(self, line: Line, event: Event) -> None:
        match event:
            case StepTaken(metrics):
                epochs = line.settings.get("train.num_train_epochs", self.epochs)
                line.doing = f"{metrics['stage']} {metrics['epoch'] / epochs:.0%}"
                self._say_now_and_then(line)
            case PhaseBegan(text) if not text.startswith("stage"):
                line.doing = text
                self._say_now_and_then(line)
            case RungEnded(budget, score):
                line.budget, line.score = budget, score
                self._say(line.number, f"rung {self.rung(budget)}: {score:.4f}")
            case TrialEnded(row):
                self._end(line, row)

    def rung(self, budget: int) -> str:
        """Which rung of how many a trial has reached."""
        done = sum(one <= budget for one in self.budgets)
        return f"{done}/{len(self.budgets)}"

    @property
    def best(self) -> TrialRow | None:
        return best(self.ended, self.metrics)

    def head(self) -> str:
        ended, wanted = self.before + self.finished, self.before + self.wanted  # of the whole study
        best, parts = self.best, [f"{self.name}: {ended} of {wanted} trials ended"]
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

    def _end(self, line: Line, row: TrialRow) -> None:
        self.finished += 1
        self.ended.append(row)
        line.state, line.reason = row.state, row.reason
        line.seconds = time.monotonic() - line.began
        if row.values:
            line.score, line.budget = row.values[0], self.budgets[-1]
        self._say(row.number, f"{row.state}{f': {row.reason}' if row.reason else ''}   {self.head()}")

    def _say_now_and_then(self, line: Line) -> None:
        if time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self._say(line.number, line.doing, meanwhile=line.doing)
        elif not draws_on(self.console):
            going_on(f"trial {line.number}: {line.doing}")

    def _say(self, number: int, text: str, meanwhile: str = "") -> None:
        if not draws_on(self.console):
            say(f"trial {number}: {text}", f"trial {number}: {meanwhile}" if meanwhile else "")


def shown_setting(settings: Mapping[str, Any]) -> str:
    """Short names are enough between people who wrote the space."""
    values = (f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in settings.values())
    return "  ".join(f"{name.rsplit('.', 1)[-1]} {value}" for name, value in zip(settings, values, strict=True))
