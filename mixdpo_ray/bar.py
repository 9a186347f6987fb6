"""How far work has come, on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


def stderr_console() -> Console:
    """Rich's console of stderr: a terminal where it is one, whatever the environment says of colours."""
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


def draws_on(console: Console) -> bool:
    """Whether a drawing can be renewed in its place."""
    return console.is_terminal and not console.is_dumb_terminal


class _Measured(ProgressColumn):
    """What is cut where the terminal is narrow: Rich takes room from columns that it may wrap, and a line has none."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")


class Bar:
    """One line at the foot of a terminal: title, bar, n/total, what is left, what is measured. Nothing is drawn elsewhere."""

    def __init__(self, title: str, unit: str, total: int, *, stays: bool = False):
        """`stays`: on the screen, after the end."""
        self.console, self.unit = stderr_console(), unit
        self.on_terminal = draws_on(self.console)
        self.drawn = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=10, max_width=40)),
            TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
            _Measured(),
            console=self.console,
            transient=not stays,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file goes there, whatever is drawn
            disable=not self.on_terminal,
        )
        self.task = self.drawn.add_task(title, total=total or None, count="", text="")
        self.drawn.start()

    def show(self, title: str, done: int, total: int, text: str = "", eta: str = "") -> None:
        count = f"{done}/{total} {self.unit}s  {eta}".rstrip() if total else ""
        self.drawn.update(self.task, description=title, completed=done, total=total or None, count=count, text=text)

    def line(self, text: str) -> None:
        """Say it above the bar."""
        if self.on_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.drawn.stop()


class Counter:
    """The progress of work that its own process counts."""

    def __init__(self, title: str, unit: str, total: int = 0):
        self.title, self.unit, self.total, self.done = title, unit, total, 0
        self.last_line = time.monotonic()
        self.bar = Bar(title, unit, total)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        self.reach(self.done + count, self.total)

    def reach(self, done: int, total: int, doing: str = "") -> None:
        self.done, self.total = done, total
        self.bar.show(self.title, done, total, doing)
        if not self.bar.on_terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.bar.line(f"{self.title}: {doing}{', ' if doing else ''}{done}/{total} {self.unit}s")


class Pace:
    """How long the rest takes, at the speed since the first count: what came before that is no part of it."""

    def __init__(self) -> None:
        self.first, self.done, self.began = 0, 0, 0.0

    def reach(self, done: int) -> None:
        """At the start, and where the count falls back, the measurement begins anew."""
        if not self.first or done <= self.done:
            self.first, self.began = done, time.monotonic()
        self.done = done

    def eta(self, total: int) -> str:
        if self.done == self.first:
            return ""
        seconds = (time.monotonic() - self.began) / (self.done - self.first) * (total - self.done)
        return f"ETA {clock(seconds)}"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
