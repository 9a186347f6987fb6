"""How far work has come, on stderr: a bar on a terminal, a line every ten seconds elsewhere.

Nobody should wonder whether a job still lives: what is waited for is said again after five seconds without a word.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mixdpo_ray.wording import clock_text

SECONDS_BETWEEN_LINES = 10.0
FIRST_SILENCE, LONGEST_SILENCE = 5.0, 60.0  # seconds without a word; in between a quarter of what has passed
NARROWEST, WIDEST = 8, 40  # columns that the bar itself takes


def stderr_console() -> Console:
    """Rich's console of stderr: a terminal where it is one, whatever the environment says of colours."""
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


def draws_on(console: Console) -> bool:
    """Whether a drawing can be drawn over again."""
    return console.is_terminal and not console.is_dumb_terminal


def live_table(get: Callable[[], Table], console: Console, *, transient: bool = False) -> Live:
    """A drawing that is renewed four times a second, from what `get` returns."""
    aside = sys.stdout.isatty()  # what is printed goes above it; but what goes to a file goes there, whatever is drawn
    return Live(get_renderable=get, console=console, refresh_per_second=4, transient=transient, redirect_stdout=aside)


def begin_drawing(live: Live) -> None:
    live.start()
    live.console.show_cursor()  # a driver that is killed could not bring it back


class _Patience:
    """The one thing that is waited for, said again from a thread of its own while no other word comes."""

    def __init__(self) -> None:
        self.timer: threading.Timer | None = None
        self.lock = threading.RLock()  # who has another word while this one is said waits, and then ends it

    def begin(self, text: str) -> None:
        self._start(text, time.monotonic())

    def stop(self) -> None:
        with self.lock:
            if self.timer is not None:
                self.timer.cancel()
            self.timer = None

    def _start(self, text: str, began: float) -> None:
        seconds = min(LONGEST_SILENCE, max(FIRST_SILENCE, (time.monotonic() - began) / 4))
        timer = threading.Timer(seconds, lambda: self._tell(timer, text, began))
        timer.daemon = True
        with self.lock:
            self.stop()
            self.timer = timer
            timer.start()

    def _tell(self, timer: threading.Timer, text: str, began: float) -> None:
        with self.lock:
            if timer is self.timer and threading.main_thread().is_alive():  # no other word came, and no end
                print(f"{text}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)
                self._start(text, began)


_patience = _Patience()


def say(text: str, meanwhile: str = "") -> None:
    """A line for a person who waits; what is drawn on a terminal meanwhile stays below it.

    `meanwhile`: what goes on from here, which is said again until another word comes.
    """
    going_on()
    print(text, file=sys.stderr, flush=True)
    going_on(meanwhile)


def going_on(text: str = "") -> None:
    """Say this if for some seconds no other word comes, and then again; without a text, nothing goes on any more."""
    _patience.stop()
    if text:
        _patience.begin(text)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what begins, and say it again now and then while the body runs."""
    say(text, meanwhile=text)
    try:
        yield
    finally:
        going_on()


class Bar:
    """One line at the foot of a terminal: title, bar, n/total, time left, what is measured. Elsewhere nothing."""

    def __init__(self, title: str, unit: str, total: int, *, stays: bool = False):
        """`stays`: on the screen, after the end."""
        self.console, self.unit = stderr_console(), unit
        self.on_terminal = draws_on(self.console)
        self.title, self.done, self.total, self.eta, self.measured = title, 0, total, "", ""
        self.changed = time.monotonic()
        self.live = live_table(self._line, self.console, transient=not stays)
        if self.on_terminal:
            going_on()  # the bar itself tells that something does
            begin_drawing(self.live)

    def show(
        self, title: str, done: int, total: int, measured: str = "", eta: str = "", *, meanwhile: str = ""
    ) -> None:
        """`meanwhile`: as in say(); a bar tells by itself for how long nothing has come."""
        self.title, self.done, self.total, self.measured, self.eta = title, done, total, measured, eta
        self.changed = time.monotonic()
        going_on("" if self.on_terminal else meanwhile)

    def say(self, text: str, meanwhile: str = "") -> None:
        """A line of its own, above the bar."""
        if self.on_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            say(text, meanwhile)

    def close(self) -> None:
        going_on()
        self.live.stop()

    def _line(self) -> Table:
        """A narrow terminal takes from the bar first, and then from the end of what is measured."""
        count = f"{self.done}/{self.total} {self.unit}s" if self.total else ""
        still = time.monotonic() - self.changed
        since = f"{still:.0f} s so far" if still > FIRST_SILENCE else ""
        told = "  ".join(filter(None, [count, since, self.eta, self.measured]))
        room = self.console.width - len(self.title) - len(told) - 2
        bar = ProgressBar(self.total or None, self.done, width=max(NARROWEST, min(WIDEST, room)))
        line = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(), padding=(0, 1))
        line.add_row(Text(self.title), bar, Text(told, no_wrap=True, overflow="ellipsis"))
        return line


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
        line = f"{self.title}: {doing}{', ' if doing else ''}{done}/{total} {self.unit}s"
        self.bar.show(self.title, done, total, doing, meanwhile=line)
        if not self.bar.on_terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.bar.say(line, meanwhile=line)


class Pace:
    """How long the rest takes, at the speed since the first count: what came before that is no part of it."""

    def __init__(self) -> None:
        self.first, self.done, self.began = 0, 0, 0.0

    def reach(self, done: int) -> None:
        """The measurement begins with the first count, and anew where the count falls back."""
        if not self.first or done <= self.done:
            self.first, self.began = done, time.monotonic()
        self.done = done

    def eta(self, total: int) -> str:
        if self.done == self.first:
            return ""
        seconds = (time.monotonic() - self.began) / (self.done - self.first) * (total - self.done)
        return f"ETA {clock_text(seconds)}"
