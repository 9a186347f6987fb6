"""Checkpoints that do not stop training: a step waits only until its shards lie on a disk of the rank's machine.

1. In the step, every rank writes its shards and the state of its generators into a scratch folder.
2. Meanwhile a thread of each rank hashes them, and moves or copies them to the step's folder in storage.
3. At the end of a step by which all ranks are done, hashes are gathered; a thread of rank 0 commits.
4. At the end of a step by which that is done, whoever listens is told.

Ranks agree at the end of steps, by one number from each that the training thread reduces: collectives of two threads
would meet in another order on every rank. One checkpoint is on its way at a time, and the next one waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mixdpo_ray import storage
from mixdpo_ray.errors import MixDPOError, NonFiniteError
from mixdpo_ray.training.checkpoint_files import scratch_folder, write_shards
from mixdpo_ray.training.checkpoints import Checkpoints, File
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.listener import STORED_SECONDS, Listener
from mixdpo_ray.training.metrics import CHECKPOINT_SECONDS, MetricsLog

FAILED, WORKING, DONE = -1.0, 0.0, 1.0


@dataclass
class Underway:
    """A checkpoint that is not committed yet. `work`: what this rank's thread does for it now."""

    step: int
    zero_stage: int
    metrics: Mapping[str, float]
    state: Mapping[str, Any]  # of the objective
    work: Future[Any]
    waited_before: float  # seconds that steps had waited for checkpoints before this one
    began: float  # when its step did
    committing: bool = False
    seconds: float = 0.0  # until it counted

    @property
    def progress(self) -> float:
        if not self.work.done():
            return WORKING
        return DONE if self.work.exception() is None else FAILED


class CheckpointWriter:
    """Writes the checkpoints of one training. What it does is collective."""

    def __init__(
        self, policy: Policy, checkpoints: Checkpoints, log: MetricsLog | None, listener: Listener, *, adapters: bool
    ):
        """`log`: rank 0's."""
        self.policy, self.checkpoints, self.adapters = policy, checkpoints, adapters
        self.log, self.listener = log, listener
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.underway: Underway | None = None
        self.closed = False
        self.waited = 0.0
        self.waited_in_all = 0.0
        self.seconds: float | None = None  # that the last one took until it counted

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Leave nothing on its way behind the body; what an error leaves there never counts."""
        try:
            yield
        except NonFiniteError:  # of sums over all ranks, so that all of them are here
            self.finish()
            raise
        finally:
            self.closed = True
            self.thread.shutdown()

    def save(self, step: int, metrics: Mapping[str, float], why: str | None = None, *, waits: bool = False) -> None:
        """Write this rank's shards. A failure leaves the checkpoints before it as they are.

        `waits`: until the checkpoint counts, since nobody knows what comes next.
        """
        self.listener.at_location(f"the checkpoint after step {step}", slow=True)
        self.advance()
        if self.underway is not None:
            self._say(f"waiting until the checkpoint of step {self.underway.step} is stored")
            self.finish()
        self._say(f"saving a checkpoint{f': {why}' if why else ''}")
        with self._timed():
            self.underway = self._begin(step, metrics)
        if waits:
            self.finish()

    def advance(self) -> None:
        """Go on with the checkpoint that is on its way, where every rank is ready for that."""
        with self._timed():
            if self.underway is not None and self._all_done(self.underway):
                self._next(self.underway)

    def finish(self) -> None:
        """Wait until nothing is on its way."""
        if self.underway is not None:
            self.listener.at_location(f"the storing of the checkpoint after step {self.underway.step}", slow=True)
        while self.underway is not None:
            with self._timed():
                wait([self.underway.work])
            self.advance()

    def seconds_waited(self) -> dict[str, float]:
        """What steps have waited for checkpoints since this was asked before, as a metric; nothing if they did not."""
        waited, self.waited = self.waited, 0.0
        return {CHECKPOINT_SECONDS: waited} if waited else {}

    def _begin(self, step: int, metrics: Mapping[str, float]) -> Underway:
        began = time.perf_counter()
        folder = scratch_folder(self.checkpoints.folder, step, self.checkpoints.world)
        try:
            written = write_shards(self.policy, folder, self.checkpoints.world, adapters=self.adapters)
        except BaseException:
            storage.delete(str(folder))
            raise
        return Underway(
            step,
            self.policy.zero_stage,
            dict(metrics),
            {name: values.tolist() for name, values in self.policy.objective_state.items()},
            self.thread.submit(self._store, self.checkpoints.path(step), folder, written),
            self.waited_in_all,
            began,
        )

    def _next(self, underway: Underway) -> None:
        if underway.committing:
            self.underway, self.seconds = None, underway.seconds
            waited = self.waited_in_all - underway.waited_before
            seconds = {CHECKPOINT_SECONDS: waited, STORED_SECONDS: underway.seconds}
            metrics = {"step": underway.step, **seconds, **underway.metrics}
            self.listener.on_checkpoint(self.checkpoints.path(underway.step), metrics)
            return
        files = self.checkpoints.gather(underway.work.result())
        underway.committing = True
        underway.work = self.thread.submit(self._commit, underway, files)

    def _store(self, target: str, folder: Path, written: list[Path]) -> dict[str, File]:
        """Files that this rank's thread adds to the step's folder, which nothing ever writes twice."""
        files: dict[str, File] = {}
        try:
            storage.make_folder(target)
            for file in written:
                if self.closed:
                    break
                size, sha256 = storage.digest(str(file))
                files[file.name] = File(size=size, sha256=sha256)
                _move(str(file), storage.join(target, file.name))
        finally:
            storage.delete(str(folder))
        return files

    def _commit(self, underway: Underway, files: Mapping[str, File]) -> None:
        """Run by the thread of rank 0; those of the others have nothing to do."""
        if self.log is not None and not self.closed:
            self.log.upload()  # first: lines past a checkpoint are cut, lines before it must exist
            self.checkpoints.commit(underway.step, underway.zero_stage, files, underway.metrics, underway.state)
        underway.seconds = time.perf_counter() - underway.began

    def _all_done(self, underway: Underway) -> bool:
        """Whether all threads are; an error of any of them is raised by every rank."""
        least = torch.tensor(underway.progress, device=self.checkpoints.world.torch_device)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        if least.item() == FAILED:
            self.underway = None
            everyone = self.checkpoints.from_everyone(_told(underway.work))
            raise next(error for error in everyone if error is not None)
        return bool(least.item() == DONE)

    def _say(self, text: str) -> None:
        if self.checkpoints.world.leads:
            self.listener.on_phase(text)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began, before, in_all = time.perf_counter(), self.waited, self.waited_in_all
        underway = self.underway is not None
        try:
            yield
        finally:
            if underway or self.underway is not None:
                seconds = time.perf_counter() - began
                self.waited, self.waited_in_all = before + seconds, in_all + seconds


def _told(work: Future[Any]) -> Exception | None:
    """What went wrong on this rank, as others can be told of it."""
    error = work.exception() if work.done() else None
    if error is None or isinstance(error, MixDPOError):
        return error
    return RuntimeError(f"a checkpoint could not be stored: {error!r}")


def _move(source: str, target: str) -> None:
    if storage.is_local(target):
        storage.move(source, target)
    else:
        storage.copy(source, target)
