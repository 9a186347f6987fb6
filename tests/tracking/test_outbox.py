"""A tracker that hangs, raises or is down: no step waits for it, and what it lacks is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mixdpo_ray.tracking.outbox import Ending, Outbox, TrackedLine

DOWN = ConnectionError("https://me:secret@host refused\nand a page more")


def line(step: int) -> TrackedLine:
    return TrackedLine.of({"step": step, "loss": 1.0, "stage": "easy"})


class Kept:
    """A tracker that keeps what it is handed, but for the first failures of it."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.lines, self.opened = failures, list[int](), list[int]()
        self.ending: Ending | None = None

    def open(self, since: int) -> Kept:
        self.opened.append(since)
        return self

    def has(self, line: TrackedLine) -> bool:
        return line.done in self.lines

    def log(self, line: TrackedLine) -> None:
        self.lines.append(line.done)
        if self.failures:
            self.failures -= 1
            raise DOWN  # after it was taken: the answer was lost

    def end(self, ending: Ending) -> None:
        self.ending = ending


class Hanging(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def log(self, line: TrackedLine) -> None:
        self.let_go.wait()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    tracker = Hanging()
    yield tracker
    tracker.let_go.set()


def finish(outbox: Outbox, seconds: float = 5.0) -> float:
    """How long the end of a training waited."""
    began = time.monotonic()
    outbox.finish(Ending({"steps": 3}))
    outbox.wait(began + seconds)
    return time.monotonic() - began


def test_what_was_handed_over_before_is_not_handed_over_again() -> None:
    tracker, told = Kept(), list[str]()
    tracker.lines = [1, 2]
    outbox = Outbox("kept", tracker.open, [line(0), line(1), line(2)], 3, told.append)
    outbox.put(line(3))
    finish(outbox)
    assert tracker.lines == [1, 2, 3, 4]
    assert tracker.ending == Ending({"steps": 3})
    assert told == []


def test_a_tracker_that_hangs_stops_no_step_and_is_told_at_the_end(hanging: Hanging) -> None:
    told: list[str] = []
    outbox = Outbox("kept", hanging.open, [], 0, told.append)
    began = time.monotonic()
    for step in range(2000):
        outbox.put(line(step))
    assert time.monotonic() - began < 0.5
    assert told == []
    assert 0.2 <= finish(outbox, seconds=0.2) < 1
    assert told == ["output.trackers.kept lacks 2000 lines of metrics: metrics.jsonl has them"]


def test_a_tracker_that_is_down_is_told_once_and_gets_all_when_it_is_up_again() -> None:
    tracker, told = Kept(failures=3), list[str]()
    outbox = Outbox("kept", tracker.open, [], 0, told.append, pause=0.01)
    for step in range(5):
        outbox.put(line(step))
    while not outbox.is_empty:
        time.sleep(0.01)
    finish(outbox)
    assert tracker.lines == [1, 2, 3, 4, 5]
    assert tracker.opened == [0, 0, 1, 2]  # each time anew, to ask what it has
    (said,) = told
    assert said.startswith("output.trackers.kept: https://(hidden)@host refused; training goes on, and it is tried")
    assert "\n" not in said


def test_a_tracker_that_was_down_is_tried_once_more_at_the_end() -> None:
    tracker, told = Kept(failures=1), list[str]()
    outbox = Outbox("kept", tracker.open, [], 0, told.append, pause=60)
    outbox.put(line(0))
    while not told:
        time.sleep(0.01)
    finish(outbox)
    assert (tracker.lines, tracker.ending, len(told)) == ([1], Ending({"steps": 3}), 1)


def test_a_tracker_that_always_raises_ends_with_the_training() -> None:
    def refuse(since: int) -> Kept:
        raise DOWN

    told: list[str] = []
    outbox = Outbox("kept", refuse, [], 0, told.append)
    for step in range(3):
        outbox.put(line(step))
    assert finish(outbox) < 1
    assert [said.partition(":")[0] for said in told] == [
        "output.trackers.kept",
        "output.trackers.kept lacks 3 lines of metrics",
    ]


def test_what_waits_is_bounded(hanging: Hanging) -> None:
    told: list[str] = []
    outbox = Outbox("kept", hanging.open, [], 0, told.append, room=10)
    for step in range(100):
        outbox.put(line(step))
    assert outbox.waiting == 10
    finish(outbox, seconds=0)
    assert told == ["output.trackers.kept lacks 100 lines of metrics: metrics.jsonl has them"]


def test_a_step_and_what_was_measured_after_it_lie_at_the_same_number_of_steps() -> None:
    trained = TrackedLine.of({"step": 4, "stage": "easy", "loss": 0.5, "window_hash": "ab", "epoch": 1})
    assert trained == TrackedLine("step", 5, {"loss": 0.5, "epoch": 1})
    assert TrackedLine.of({"kind": "eval", "step": 5, "eval_loss": 0.25}) == TrackedLine("eval", 5, {"eval_loss": 0.25})
