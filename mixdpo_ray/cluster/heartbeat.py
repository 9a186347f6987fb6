"""A worker's signs of life: a thread tells the run's actor where training stands, and ends a group that hangs."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray.cluster.hang_detector import Beat, seconds_between_beats
from mixdpo_ray.training.world import World

EXIT_STATUS = 70  # of a worker that ends because the group hangs


class Heartbeat:
    def __init__(self, send: Callable[[Beat], Any], world: World, patience: float, warn: Callable[[str], None]):
        """`send`: a sign to the run's actor, whose answer is awaited."""
        self.send, self.world, self.patience, self.warn = send, world, patience, warn
        self.process = uuid.uuid4().hex
        self.count, self.slow = 0, True
        self.location: str | None = None
        self.thread_id = threading.get_ident()
        self.finished = threading.Event()

    def at(self, location: str | None, *, slow: bool) -> None:
        """Called by the training thread at every location that it comes to."""
        self.location, self.slow = location, slow
        self.count += 1

    @contextmanager
    def reporting(self) -> Iterator[None]:
        thread = threading.Thread(target=self._tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.finished.set()

    def _tell(self) -> None:
        """Every few seconds. On a verdict the process ends at once: its training thread is stuck in a collective."""
        while not self.finished.wait(seconds_between_beats(self.patience)):
            beat = Beat(
                self.world.rank, self.world.size, self.process, self.count, self.location, self.slow, self._frame()
            )
            try:
                verdict, first = ray.get(self.send(beat), timeout=30)
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayActorError:  # the driver has gone, and takes the workers with it
                return
            if verdict and not self.finished.is_set():
                if first:
                    self.warn(f"{verdict}: starting the workers again")
                    self.finished.wait(1)  # until the words are on their way
                os._exit(EXIT_STATUS)

    def _frame(self) -> str:
        """The line that the training thread stands at."""
        frame = sys._current_frames().get(self.thread_id)
        if frame is None:
            return "?"
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
