"""A standing group of workers: it trains one job after the other, and is started anew only when it has died."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray

from mixdpo_ray import storage
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_workers import queue_name, run_workers
from mixdpo_ray.recipe.cluster import ClusterSettings


class WorkerGroup:
    """A worker group of a process that is not the driver: Ray would not end in peace under threads of that one."""

    def __init__(self, cluster: ClusterSettings, folder: str, run_actor: Any):
        """`folder`: where Ray may write."""
        self.cluster, self.folder, self.run_actor = cluster, folder, run_actor
        self.queue = ""
        self.running: Future[None] | None = None
        self.thread = ThreadPoolExecutor(1, "workers")

    def train(self, job: QueuedJob) -> dict[str, Any]:
        """The summary of rank 0. Workers are started where there are none: before the first job, and after a death."""
        number = self._put(job)
        if number is None:
            self._start()
            number = self._put(job)
        ended = None if number is None else ray.get(self.run_actor.ended.remote(self.queue, number))
        if ended is None:
            assert self.running is not None
            error = self.running.exception()
            assert error is not None, "workers leave in peace only after what they were handed has ended"
            raise error
        summary: dict[str, Any] = ended.result()
        return summary

    def close(self) -> None:
        if self.running is not None:
            ray.get(self.run_actor.close_queue.remote(self.queue))
            self._wait_until_gone(self.running)

    def _put(self, job: QueuedJob) -> int | None:
        """Its number, unless nobody is there to train it."""
        if self.running is None:
            return None
        number: int | None = ray.get(self.run_actor.queue_job.remote(self.queue, job.job.run, job.packed(), job.label))
        return number

    def _start(self) -> None:
        """Start new workers, after those before have left and their room is free again."""
        if self.running is not None:
            self._wait_until_gone(self.running)
        self.queue = queue_name()
        self.running = self.thread.submit(self._run, self.queue)

    def _wait_until_gone(self, running: Future[None]) -> None:
        """How the workers go home concerns no job; what Ray wrote for them goes with them."""
        running.exception()
        storage.delete(storage.join(self.folder, self.queue))

    def _run(self, queue: str) -> None:
        try:
            run_workers(self.cluster, queue, self.folder, self.run_actor)
        finally:
            ray.get(self.run_actor.abandon_queue.remote(queue))


@contextmanager
def worker_group(cluster: ClusterSettings, folder: str, run_actor: Any) -> Iterator[WorkerGroup]:
    group = WorkerGroup(cluster, folder, run_actor)
    try:
        yield group
    finally:
        group.close()
