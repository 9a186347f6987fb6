"""One training run on Ray: prepare what is missing, start the workers, watch them, leave a summary.

Ray Train places the workers, restarts the group when one dies, and is told of each checkpoint. Which checkpoint is the
newest is decided by the committed folders of the run alone (training/checkpoints.py), never by what Ray remembers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import uses_gpu, wait_for_resources
from mixdpo_ray.cluster.prepare import prepare
from mixdpo_ray.cluster.progress import Board, Display, watching
from mixdpo_ray.cluster.reference import reference
from mixdpo_ray.cluster.run_folder import claim, finished_summary, locked, run_folder, write_summary
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.cluster.stream import RayDataWindows
from mixdpo_ray.errors import MixDPOError, RunConflictError
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.recipe import Recipe
from mixdpo_ray.training.curves import draw_curves
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.model import with_absolute_paths
from mixdpo_ray.training.schedule import check_warmup
from mixdpo_ray.training.world import World

NAMESPACE = "mixdpo_ray"


def train(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says, continuing where a killed run stopped. Ray must be connected."""
    table = prepare(recipe)
    with locked(recipe):
        job = make_job(recipe, table)
        plan = job.plan(table)
        check_warmup(plan, recipe.train.schedule)
        steps = job.steps(plan)
        if summary := finished_summary(recipe, steps):
            return {**summary, "already_finished": True}
        folder = reference(recipe, table, job)
        job = job.with_reference(folder and _absolute(folder))
        board = _take_board(job.run)
        display = Display("train", steps)
        wait_for_resources(recipe.cluster, lambda text: display.show("phase", text))
        began = time.monotonic()
        with watching(board, display):
            summary = _fit(recipe, job, board)
        summary = {**summary, "steps": steps, "seconds": round(time.monotonic() - began, 1)}
        draw_curves(job.run)
        write_summary(recipe, summary)
        return {**summary, "already_finished": False}


def make_job(recipe: Recipe, table: PreparedTable) -> TrainingJob:
    return TrainingJob(
        model=with_absolute_paths(recipe.model),
        curriculum=recipe.curriculum,
        objective=recipe.objective,
        train=recipe.train,
        deepspeed=recipe.deepspeed,
        prepared=_absolute(table.folder),
        reference=None,
        run=_absolute(run_folder(recipe)),
        fingerprint=claim(recipe, table.manifest.content_digest),
        card={"recipe": recipe.to_dict(), "data": table.manifest.model_dump(mode="json")},
        tensorboard=recipe.output.tensorboard,
    )


def _absolute(path: str) -> str:
    """Workers have working directories of their own."""
    return str(storage.local(path).absolute()) if storage.is_local(path) else path


def _take_board(run: str) -> Any:
    """The run's message board and its lock in this cluster. A killed driver's board lives on for some seconds."""
    actor_class: Any = Board  # a Ray actor class: its own attributes are not the plain class's
    name = f"board-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    for _ in range(20):
        try:
            return actor_class.options(name=name, namespace=NAMESPACE).remote()
        except ValueError:
            time.sleep(1)
    raise RunConflictError(
        f"{run} is being trained by another job of this cluster: wait for it, or choose another name"
    )


def _fit(recipe: Recipe, job: TrainingJob, board: Any) -> dict[str, Any]:
    cluster, gpu = recipe.cluster, uses_gpu(recipe.cluster)
    resources = {"CPU": cluster.cpus_per_worker, **({"GPU": 1.0} if gpu else {}), **cluster.resources_per_worker}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "cluster": cluster, "board": board, "gpu": gpu},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            placement_strategy=cluster.placement_strategy,
        ),
        run_config=RunConfig(
            # a name of its own for every driver: Ray would otherwise restore what it remembers of the last one
            name=f"attempt-{time.time_ns()}",
            storage_path=storage.join(job.run, "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
        ),
    )
    try:
        with _interruptible():
            result = trainer.fit()
    except TrainingFailedError as error:
        raise (ray.get(board.stopped_by.remote()) or _plain(error)) from error
    if stopped := ray.get(board.stopped_by.remote()):
        raise stopped
    storage.delete(storage.join(job.run, "ray"))
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


def _plain(error: TrainingFailedError) -> MixDPOError:
    """One line for what no part of ours has a name for."""
    failures = getattr(error, "worker_failures", {})
    causes = [f"rank {rank}: {_cause(str(failure))}" for rank, failure in sorted(failures.items())]
    return MixDPOError(f"the workers failed too often: {'; '.join(causes) or error}; see cluster.max_failures")


def _cause(text: str) -> str:
    """The line of a traceback that names the exception; its message may have lines of its own."""
    lines = text.strip().splitlines() or ["no message"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)), lines[-1])


class _Listener:
    """What training tells, carried to the driver's board; checkpoints also to Ray Train."""

    def __init__(self, board: Any):
        self.board = board

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.board.tell.remote("step", metrics)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        self.board.tell.remote("evaluation", metrics)

    def on_phase(self, text: str) -> None:
        self.board.tell.remote("phase", text)

    def on_warning(self, text: str) -> None:
        self.board.tell.remote("warning", text)

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        """Called by every rank, for Ray's report is a barrier. Ray keeps a pointer: the checkpoint itself is ours."""
        if ray.train.get_context().get_world_rank():
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "pointer.json").write_text(json.dumps({"checkpoint": path}))
            ray.train.report(metrics, Checkpoint.from_directory(folder))


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    board, job = config["board"], config["job"]
    if ray.get(board.stopped_by.remote()):
        return {}  # a restart would only repeat the error: every rank leaves in peace
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if config["gpu"] else "cpu"
    world = World(context.get_world_rank(), context.get_world_size(), context.get_local_rank(), device)
    _use_cores(config["cluster"], context.get_local_world_size())
    try:
        return run_training(job, world, RayDataWindows(config["cluster"]), _Listener(board))
    except MixDPOError as error:
        ray.get(board.stop_for.remote(error))
        raise


def _use_cores(cluster: ClusterSettings, workers_here: int) -> None:
    """Two processes with two threads each on two cores take many times as long as with one."""
    import torch

    threads = max(1, min(int(cluster.cpus_per_worker), (os.cpu_count() or 1) // workers_here))
    torch.set_num_threads(threads)
