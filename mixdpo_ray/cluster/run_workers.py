"""Workers under Ray Train, which starts them, and again when one dies: for the jobs of one queue."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import missing_resources, uses_gpu, worker_resources
from mixdpo_ray.cluster.early_checkpoint import RESIZE_SECONDS
from mixdpo_ray.cluster.job_queue import Ended
from mixdpo_ray.cluster.queued_job import Group, QueuedJob
from mixdpo_ray.cluster.ray_train_internals import WorkersTrainer, found_no_machines, start_autoscaling_coordinator
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.cluster.worker_deaths import TellsDeaths, cause_of_death
from mixdpo_ray.cluster.worker_entry import work
from mixdpo_ray.errors import ResourceError, WorkersError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.hub_fetch import WERE_FETCHED
from mixdpo_ray.training.job import TrainingJob

# Killed workers still hold a share of the CPUs that Ray Data divides, for 180 s, and with none left it spins
_FORGET = {"RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "30"}
START_SECONDS = 60.0  # Ray Train's own patience with one attempt to start the workers


def fit(cluster: ClusterSettings, job: TrainingJob, run_actor: Any) -> dict[str, Any]:
    """The summary of rank 0, of one training by workers that end with it. The run's actor hears how it goes."""
    (summary,) = fit_in_turn(cluster, [QueuedJob(job)], job.run, run_actor)
    return summary


def fit_in_turn(cluster: ClusterSettings, jobs: Sequence[QueuedJob], run: str, run_actor: Any) -> list[dict[str, Any]]:
    """Each by the workers that trained the one before. `run`: the folder that Ray may write to."""
    queue = queue_name()
    # one by one: the actor may answer calls in another order than they were made
    numbers = [ray.get(run_actor.queue_job.remote(queue, job.job.run, job.packed(), job.label)) for job in jobs]
    ray.get(run_actor.close_queue.remote(queue))
    run_workers(cluster, queue, RunRecord(run).scratch, run_actor)
    ray.get(run_actor.abandon_queue.remote(queue))
    ends: list[Ended] = ray.get([run_actor.ended.remote(queue, number) for number in numbers])
    summaries = [ended.result() for ended in ends]  # after one that ended the workers there is nothing, but it raises
    storage.delete(RunRecord(run).scratch)
    return summaries


def queue_name() -> str:
    """Another one for every start of a group: Ray would otherwise restore what it remembers of the last one."""
    return f"group-{uuid.uuid4().hex[:16]}"


def run_workers(cluster: ClusterSettings, queue: str, folder: str, run_actor: Any) -> None:
    """Until the queue is closed and empty. Raises where they die too often; the run's actor tells how jobs ended."""
    start_autoscaling_coordinator()
    gpu, resources = uses_gpu(cluster), worker_resources(cluster)
    trainer = WorkersTrainer(
        work,
        train_loop_config={"group": pickle.dumps(Group(queue, run_actor, cluster, gpu, resources))},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            placement_strategy=cluster.placement_strategy,
            label_selector=cluster.label_selector or None,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=queue,
            storage_path=folder,
            worker_runtime_env={"env_vars": {**_FORGET, **_fetched()}},
            callbacks=[TellsDeaths(queue, run_actor, cluster.max_failures + 1)],
            checkpoint_config=CheckpointConfig(num_to_keep=1),  # Ray's are pointers to ours
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                # a group that finds no machines is tried again for as long as a person is willing to wait
                controller_failure_limit=math.ceil(cluster.start_timeout_seconds / START_SECONDS),
            ),
        ),
    )
    try:
        with _interruptible():
            trainer.fit()
    except TrainingFailedError as error:
        if ray.get(run_actor.stopped.remote(queue)):
            return
        hang = ray.get(run_actor.hang_of.remote(queue))
        raise (_never_started(error, cluster) or workers_error(error, cluster.max_failures, hang)) from error


def _fetched() -> dict[str, str]:
    """Tell workers that models lie in their node's cache, where this process has seen to that."""
    return {WERE_FETCHED: "1"} if WERE_FETCHED in os.environ else {}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ray Train answers Ctrl-C by stopping the workers and raising SystemExit, and leaves its handler behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


def _never_started(error: TrainingFailedError, cluster: ClusterSettings) -> ResourceError | None:
    if not found_no_machines(getattr(error, "controller_failure", None)):
        return None
    missing = missing_resources(cluster, to_start=False) or "room where cluster.placement_strategy wants it"
    return ResourceError(
        f"the workers could not be started for {cluster.start_timeout_seconds:.0f} s (cluster.start_timeout_seconds): "
        f"the cluster lacks {missing}; add nodes and repeat the command, which continues"
    )


def workers_error(error: TrainingFailedError, retries: int, hang: str | None = None) -> WorkersError:
    """One line for what no part of ours has a name for."""
    failures = getattr(error, "worker_failures", {})
    causes = [f"rank {rank}: {cause_of_death(failure)}" for rank, failure in sorted(failures.items())]
    why = hang or "; ".join(causes) or cause_of_death(getattr(error, "controller_failure", error))
    if not retries:
        return WorkersError(f"the workers failed: {why}")
    return WorkersError(f"the workers failed {retries + 1} times: {why}; see cluster.max_failures")
