"""One fit of Ray Train: a group of workers runs a training job, and is started again when one of them dies."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import TrainingFailedError

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import missing_resources, uses_gpu, worker_resources
from mixdpo_ray.cluster.notices import RESIZE_SECONDS, Notices
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.cluster.signs import Signs
from mixdpo_ray.cluster.stream import RayDataWindows
from mixdpo_ray.errors import MixDPOError, ResourceError, WorkersError
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.windows import WindowSource, read_windows
from mixdpo_ray.training.world import World

DIED = "its process died without a word: killed, or out of memory"
# Killed workers still hold a share of the CPUs that Ray Data divides, for 180 s, and with none left it spins
_FORGET = {"RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "30"}
START_SECONDS = 60.0  # Ray Train's own patience with one attempt to start the workers


def fit(cluster: ClusterSettings, job: TrainingJob, board: Any, listener: Listener | None = None) -> dict[str, Any]:
    """The summary of rank 0. The board hears of errors; the listener, by default the board, of everything else."""
    return run_group(_worker, {"job": job, "listener": listener or Listener(board)}, cluster, job.run, board)


def run_group(
    worker: Callable[[dict[str, Any]], dict[str, Any]],
    content: Mapping[str, Any],
    cluster: ClusterSettings,
    run: str,
    board: Any,
) -> dict[str, Any]:
    """What rank 0 of a group of workers returns. `run`: the folder that the board knows the group by."""
    gpu, resources = uses_gpu(cluster), worker_resources(cluster)
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            **content,
            "run": run,
            "cluster": cluster,
            "board": board,
            "gpu": gpu,
            "resources": resources,
        },
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            placement_strategy=cluster.placement_strategy,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            # a name of its own for every driver: Ray would otherwise restore what it remembers of the last one
            name=f"attempt-{time.time_ns()}",
            storage_path=storage.join(run, "ray"),
            worker_runtime_env={"env_vars": _FORGET},
            failure_config=FailureConfig(
                max_failures=cluster.max_failures,
                # a group that finds no machines is tried again for as long as a person is willing to wait
                controller_failure_limit=math.ceil(cluster.start_timeout_seconds / START_SECONDS),
            ),
        ),
    )
    try:
        with _interruptible():
            result = trainer.fit()
    except TrainingFailedError as error:
        stopped, hang = ray.get([board.stopped_by.remote(run), board.hang_of.remote(run)])
        raise (stopped or _never_started(error, cluster) or workers_error(error, cluster.max_failures, hang)) from error
    if stopped := ray.get(board.stopped_by.remote(run)):
        raise stopped
    storage.delete(storage.join(run, "ray"))
    return dict(result.return_value or {})


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
    if not isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        return None
    missing = missing_resources(cluster, to_start=False) or "room where cluster.placement_strategy wants it"
    return ResourceError(
        f"the workers could not be started for {cluster.start_timeout_seconds:.0f} s (cluster.start_timeout_seconds): "
        f"the cluster lacks {missing}; add nodes and repeat the command, which continues"
    )


def workers_error(error: TrainingFailedError, retries: int, hang: str | None = None) -> WorkersError:
    """One line for what no part of ours has a name for."""
    failures = getattr(error, "worker_failures", {})
    causes = [f"rank {rank}: {_cause(failure)}" for rank, failure in sorted(failures.items())]
    why = hang or "; ".join(causes) or _cause(getattr(error, "controller_failure", error))
    if not retries:
        return WorkersError(f"the workers failed: {why}")
    return WorkersError(f"the workers failed {retries + 1} times: {why}; see cluster.max_failures")


def _cause(failure: Exception) -> str:
    """What Ray hands on is a traceback, of which one line names the exception, or the exception itself."""
    if isinstance(getattr(failure, "health_check_failure", None), ray.exceptions.RayActorError):
        return DIED
    lines = str(failure).strip().splitlines() or ["no message"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return named[-1] if named else f"{type(failure).__name__}: {lines[0]}"


class Listener:
    """What training tells, carried to the driver's board; checkpoints also to Ray Train."""

    signs: Signs  # both are made in the worker
    notices: Notices

    def __init__(self, board: Any):
        self.board = board

    def tell(self, kind: str, content: Any) -> None:
        self.board.tell.remote(kind, content)

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.tell("step", metrics)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        self.tell("evaluation", metrics)

    def on_phase(self, text: str) -> None:
        self.tell("phase", text)

    def on_warning(self, text: str) -> None:
        self.tell("warning", text)

    def on_place(self, place: str | None, *, slow: bool = False) -> None:
        self.signs.at(place, slow=slow)

    def checkpoint_wanted(self) -> str | None:
        return self.notices.checkpoint_wanted()

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        """Called by every rank, for Ray's report is a barrier. Ray keeps a pointer: the checkpoint itself is ours."""
        if ray.train.get_context().get_world_rank():
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "pointer.json").write_text(json.dumps({"checkpoint": path}))
            ray.train.report(metrics, Checkpoint.from_directory(folder))


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    with stopping_for_good(config) as stopped:
        if stopped:
            return {}
        summary = train_here(config, config["job"], take_place(config), config["listener"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {**summary, "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1)}


@contextmanager
def stopping_for_good(config: Mapping[str, Any]) -> Iterator[bool]:
    """Whether the group was stopped: a restart would only repeat the error, so every rank leaves in peace."""
    board, run = config["board"], config["run"]
    try:
        yield ray.get(board.stopped_by.remote(run)) is not None
    except MixDPOError as error:
        ray.get(board.stop_for.remote(run, error))
        raise


def take_place(config: Mapping[str, Any]) -> World:
    """Of this worker in its group."""
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if config["gpu"] else "cpu"
    _use_cores(config["cluster"], context.get_local_world_size())
    return World(context.get_world_rank(), context.get_world_size(), context.get_local_rank(), device)


def train_here(config: Mapping[str, Any], job: TrainingJob, world: World, listener: Listener) -> dict[str, Any]:
    """Collective: one training by the workers that are there."""
    cluster = config["cluster"]
    listener.notices = Notices(world, cluster, config["resources"])
    listener.signs = Signs(config["board"], config["run"], world, cluster.hang_seconds, listener.on_warning)
    with listener.signs.told():
        return run_training(job, world, _windows(cluster, world, listener), listener)


def _windows(cluster: ClusterSettings, world: World, listener: Listener) -> WindowSource:
    """Ray Data, unless fewer CPUs are left than it needs: then it would wait for ever (a node died, or many joined)."""
    left = ray.cluster_resources().get("CPU", 0.0) - world.size * cluster.cpus_per_worker
    if left >= world.size:
        return RayDataWindows(cluster)
    if world.leads:
        listener.on_warning(f"{left:g} CPUs are left for {world.size} workers to read through: they read by themselves")
    return read_windows


def _use_cores(cluster: ClusterSettings, workers_here: int) -> None:
    """Two processes with two threads each on two cores take many times as long as with one."""
    import torch

    threads = max(1, min(int(cluster.cpus_per_worker), (os.cpu_count() or 1) // workers_here))
    torch.set_num_threads(threads)
