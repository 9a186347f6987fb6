"""Many small trainings, one after the other, by one group of workers, each recorded in its own folder.

A training continues in its folder, and one that has ended there is passed over: a command that was repeated trains only
what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.events import JobEnded
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.cluster.worker_group import WorkerGroup, worker_group
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.recipe.cluster import ClusterSettings
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
    def record(self) -> RunRecord:
        return RunRecord(self.run)

    @property
    def keeps_state(self) -> bool:
        return self.queued.job.keeps_state

    @property
    def ended(self) -> bool:
        """A stage has not while somebody wants the state that it left, and it was cleared away."""
        if self.record.failure() is not None:
            return True
        there = not self.keeps_state or committed_steps(self.record.checkpoints)
        return bool(there) and self.record.summary() is not None


def train_in_sequence(cluster: ClusterSettings, jobs: Sequence[RecordedJob], folder: str, run_actor: Any) -> None:
    """`folder`: where Ray may write."""
    with worker_group(cluster, folder, run_actor) as group:
        for job in jobs:
            if not job.ended:
                _train(group, job, run_actor)


def _train(group: WorkerGroup, job: RecordedJob, run_actor: Any) -> None:
    try:
        summary = _summary(group, job)
    except NonFiniteError as error:
        ended = JobEnded(failure=job.record.write_failure(str(error)))
    else:
        job.record.write_summary(summary)
        ended = JobEnded(summary=summary)
    if not job.keeps_state:
        storage.delete(job.record.checkpoints)
    if not job.keeps_model:
        storage.delete(job.record.model)
    run_actor.tell.remote(replace(ended, job=job.label))


def _summary(group: WorkerGroup, job: RecordedJob) -> dict[str, Any]:
    """A job that begins where another one failed fails for the same reason."""
    start_from = job.queued.job.start_from
    if start_from is not None and (failed := RunRecord(start_from.run).failure()):
        raise NonFiniteError(failed)
    return group.train(job.queued)
