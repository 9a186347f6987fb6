"""Lines on their way to one tracker, in a thread: what a training has to say to it costs a step nothing.

A tracker that is down is tried again, and lines wait for it, up to a number. What it had not taken when the training
ended is told; metrics.jsonl has it all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mixdpo_ray.tracking.tracked import hidden
from mixdpo_ray.wording import duration_text, first_line

MOST_WAITING = 10_000  # lines; some MB
SECONDS_BETWEEN_TRIES = 10.0
SECONDS_TO_END = 30.0  # that the end of a training waits for its trackers


@dataclass(frozen=True)
class TrackedLine:
    """The numbers of one line of metrics.jsonl."""

    kind: str  # "step" or "eval"
    done: int  # steps taken by then
    numbers: Mapping[str, float]

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> TrackedLine:
        kind = str(metrics.get("kind", "step"))
        numbers = {name: value for name, value in metrics.items() if name != "step" and isinstance(value, int | float)}
        return cls(kind, metrics["step"] + (kind == "step"), numbers)


@dataclass(frozen=True)
class Ending:
    """How a training ended: with a summary and a picture, or with neither."""

    summary: Mapping[str, Any] | None = None
    picture: Callable[[], bytes] | None = None  # draws it


class Tracker(Protocol):
    """One training in one tracker. Opened again, it continues where it was."""

    def has(self, line: TrackedLine) -> bool: ...
    def log(self, line: TrackedLine) -> None: ...
    def end(self, ending: Ending) -> None: ...


class Outbox:
    """Begins at once with the lines of `before`, of the `start` steps that were taken before this process.

    `open_tracker` is told how many steps a tracker that was opened before may have been handed.
    """

    def __init__(
        self, name: str, open_tracker: Callable[[int], Tracker], before: Iterable[TrackedLine], start: int,
        warn: Callable[[str], None], *, pause: float = SECONDS_BETWEEN_TRIES, room: int = MOST_WAITING,
    ):  # fmt: skip
        self.name, self._open, self._warn, self._pause = name, open_tracker, warn, pause
        self._lines, self._since = deque(before), start
        self._room = room + len(self._lines)
        self._ending: Ending | None = None
        self._changed = threading.Condition()
        self._lost, self._warned = 0, False
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, line: TrackedLine) -> None:
        with self._changed:
            if len(self._lines) >= self._room:
                self._lost += 1
                return
            self._lines.append(line)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Lines that were not handed over yet."""
        return len(self._lines)

    @property
    def is_empty(self) -> bool:
        return not self.waiting

    def finish(self, ending: Ending) -> None:
        """Let what waits be handed over, and the tracker be told the end; `wait` waits for it."""
        with self._changed:
            self._ending = ending
            self._changed.notify()

    def wait(self, until: float) -> None:
        """Wait, to a time of time.monotonic(), and tell what was not handed over."""
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            self._room = 0
            lost = self._lost + len(self._lines)
        late = self._thread.is_alive()
        if lost:
            self._warn(f"output.trackers.{self.name} lacks {lost} lines of metrics: metrics.jsonl has them")
        elif late:
            self._warn(f"output.trackers.{self.name} did not answer at the end: it may lack the summary")

    def _run(self) -> None:
        tracker: Tracker | None = None
        while True:
            line, ending = self._next()
            try:
                tracker = tracker or self._open(self._since)
                if line is None:
                    assert ending is not None
                    return tracker.end(ending)
                if not tracker.has(line):
                    tracker.log(line)
            except Exception as error:  # noqa: BLE001 whatever a library raises, a training goes on
                tracker = None  # opened anew, it says what it has
                self._tell(error)
                if not self._may_try_again():
                    return None
                continue
            with self._changed:
                self._since = max(self._since, self._lines.popleft().done)

    def _next(self) -> tuple[TrackedLine | None, Ending | None]:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ending is not None)
            return (self._lines[0] if self._lines else None), self._ending

    def _may_try_again(self) -> bool:
        """Wait for a while, or for the end of the training, at which it is tried once more."""
        with self._changed:
            was_over = self._ending is not None
            self._changed.wait_for(lambda: self._ending is not None, self._pause)
            return not was_over

    def _tell(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        why = hidden(first_line(error))
        self._warn(
            f"output.trackers.{self.name}: {why}; training goes on, and it is tried every {duration_text(self._pause)}"
        )
