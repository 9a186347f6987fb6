"""The trackers of one training, as rank 0 knows them: none where the recipe names none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from mixdpo_ray.tracking.mlflow_tracker import MlflowTracker
from mixdpo_ray.tracking.outbox import SECONDS_TO_END, Ending, Outbox, TrackedLine, Tracker
from mixdpo_ray.tracking.settings import (
    MlflowSettings,
    TensorBoardSettings,
    TrackerSettings,
    TrackioSettings,
    WandbSettings,
)
from mixdpo_ray.tracking.tensorboard_tracker import TensorBoardTracker
from mixdpo_ray.tracking.tracked import Tracked, tracking_id
from mixdpo_ray.tracking.trackio_tracker import TrackioTracker
from mixdpo_ray.tracking.wandb_tracker import WandbTracker


class Trackers:
    """A context that tells trackers how its body ended: well where `end` was called."""

    def __init__(self, outboxes: Iterable[Outbox] = (), draw: Callable[[], bytes] = bytes):
        """`draw`: the picture of the training, once it has ended."""
        self.outboxes, self._draw = list(outboxes), draw

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take a line of metrics.jsonl. It costs a step some microseconds."""
        for outbox in self.outboxes:
            outbox.put(TrackedLine.of(metrics))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Hand over what a training leaves, and wait a little for those who take it."""
        if self.outboxes:
            self._finish(Ending(summary, _once(self._draw)))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.outboxes:
            self._finish(Ending())

    def _finish(self, ending: Ending) -> None:
        for outbox in self.outboxes:
            outbox.finish(ending)
        until = time.monotonic() + SECONDS_TO_END
        for outbox in self.outboxes:
            outbox.wait(until)
        self.outboxes = []


def start_trackers(
    tracked: Tracked,
    run: str,
    fingerprint: str,
    start: int,
    before: Iterable[Mapping[str, Any]],
    warn: Callable[[str], None],
    draw: Callable[[], bytes],
) -> Trackers:
    """Those of a training that continues after `start` steps, of which `before` are the lines."""
    identifier, lines = tracking_id(run, fingerprint), [TrackedLine.of(metrics) for metrics in before]

    def opener(settings: TrackerSettings) -> Callable[[int], Tracker]:
        return lambda since: open_tracker(settings, tracked, identifier, run, since)

    outboxes = [Outbox(name, opener(settings), lines, start, warn) for name, settings in tracked.trackers.items()]
    return Trackers(outboxes, draw)


def open_tracker(settings: TrackerSettings, tracked: Tracked, identifier: str, run: str, since: int) -> Tracker:
    match settings:
        case WandbSettings():
            return WandbTracker(settings, tracked, identifier, run)
        case MlflowSettings():
            return MlflowTracker(settings, tracked, identifier)
        case TrackioSettings():
            return TrackioTracker(settings, tracked, identifier)
        case TensorBoardSettings():
            return TensorBoardTracker(tracked, run, since)
    raise TypeError(f"{type(settings).__name__} has no tracker")


def _once(draw: Callable[[], bytes]) -> Callable[[], bytes]:
    """The same picture for all who ask, whoever asks first."""
    lock, drawn = threading.Lock(), list[bytes]()

    def picture() -> bytes:
        with lock:
            if not drawn:
                drawn.append(draw())
            return drawn[0]

    return picture
