"""Many small trainings, one after the other, by one group of workers, each recorded in its own folder.

A training continues in its folder, and one that has ended there is passed over: a command that was repeated trains only
what is left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.events import JobEnded
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_record import FAILURE, SUMMARY
from mixdpo_ray.cluster.worker_group import WorkerGroup, worker_group
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.storage import join
from mixdpo_ray.training.checkpoints import committed_steps


@dataclass(frozen=True)
class RecordedJob:
    queued: QueuedJob
    steps: int
    keeps_model: bool = False

    @property
    def label(self) -> str:
        return str(self.queued.label)

    @property
    def run(self) -> str:
        return self.queued.job.run

    @property
    def keeps_state(self) -> bool:
        return self.queued.job.keeps_state

    @property
    def ended(self) -> bool:
        """A stage has not while somebody wants the state that it left, and it was cleared away."""
        if storage.exists(join(self.run, FAILURE)):
            return True
        there = not self.keeps_state or committed_steps(join(self.run, "checkpoints"))
        return bool(there) and storage.exists(join(self.run, SUMMARY))


def train_in_sequence(cluster: ClusterSettings, jobs: Sequence[RecordedJob], folder: str, run_actor: Any) -> None:
    """`folder`: where Ray may write."""
    with worker_group(cluster, folder, run_actor) as group:
        for job in jobs:
            if not job.ended:
                _train(group, job, run_actor)


def _train(group: WorkerGroup, job: RecordedJob, run_actor: Any) -> None:
    start_from = job.queued.job.start_from
    if start_from is not None and (failed := failure(start_from.run)):
        _record_end(job, run_actor, FAILURE, failed)
        return
    try:
        summary = group.train(job.queued)
    except NonFiniteError as error:
        _record_end(job, run_actor, FAILURE, " ".join(str(error).split()))
        return
    _record_end(job, run_actor, SUMMARY, json.dumps(summary, indent=2))


def _record_end(job: RecordedJob, run_actor: Any, mark: str, content: str) -> None:
    storage.write_bytes(join(job.run, mark), content.encode())
    if not job.keeps_state:
        storage.delete(join(job.run, "checkpoints"))
    if not job.keeps_model:
        storage.delete(join(job.run, "model"))
    ended = JobEnded(summary=json.loads(content)) if mark == SUMMARY else JobEnded(failure=content)
    run_actor.tell.remote(replace(ended, job=job.label))


def failure(run: str) -> str | None:
    path = join(run, FAILURE)
    return storage.read_bytes(path).decode() if storage.exists(path) else None
