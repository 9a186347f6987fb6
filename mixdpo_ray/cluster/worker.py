"""What each worker of a group does: train what is queued, one job after the other, until nothing more will come.

To start a group costs more than a small training does: processes, imports and a process group, 10 s and more. So it
stays, and what a training changes in its process is put back before the next one (training/isolation.py).
"""

from __future__ import annotations

import os
import pickle
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util import get_current_placement_group

from mixdpo_ray.cluster.actor_listener import ActorListener
from mixdpo_ray.cluster.early_checkpoint import EarlyCheckpoint
from mixdpo_ray.cluster.events import Event, Warned
from mixdpo_ray.cluster.heartbeat import Heartbeat
from mixdpo_ray.cluster.job_queue import Ended, Label
from mixdpo_ray.cluster.queued_job import Group, QueuedJob
from mixdpo_ray.cluster.sharded_pass import ShardedPass
from mixdpo_ray.cluster.stream import RayDataWindows
from mixdpo_ray.errors import MixDPOError, NonFiniteError, ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.isolation import isolated
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.windows import WindowSource, read_windows
from mixdpo_ray.training.world import World
from mixdpo_ray.wording import first_line


def train_what_is_queued(group: Group) -> None:
    """Collective: every rank trains the same jobs, in the same order."""
    world, number = world_of_this_worker(group), -1
    worker = ray.get_runtime_context().current_actor
    group.run_actor.hold_worker.remote(group.name, world.rank, worker)
    if world.leads:
        group.run_actor.hold_room.remote(group.name, get_current_placement_group())
    while waiting := ray.get(group.run_actor.next_job.remote(group.name, number)):
        number, packed = waiting
        with isolated(world):
            ended = _train(group, number, pickle.loads(packed), world)
        if world.leads:
            ray.get(group.run_actor.end_job.remote(group.name, number, ended))


def world_of_this_worker(group: Group) -> World:
    context = ray.train.get_context()
    device = str(ray.train.torch.get_device()) if group.gpu else "cpu"
    _use_cores(group.cluster, context.get_local_world_size())
    return World(context.get_world_rank(), context.get_world_size(), context.get_local_rank(), device)


def _train(group: Group, number: int, queued: QueuedJob | ShardedPass, world: World) -> Ended:
    try:
        return Ended(_summary(group, number, queued, world))
    except NonFiniteError as error:  # of sums over all ranks, so that all of them are here
        return Ended(error=type(error)(str(error)))  # without its frames, which hold the model
    except (MixDPOError, ImportError) as error:  # perhaps of this rank alone; started again it would only come again
        told = error if isinstance(error, MixDPOError) else cannot_import(error)
        ray.get(group.run_actor.end_job.remote(group.name, number, Ended(error=told), for_good=True))
        raise


def cannot_import(error: ImportError) -> ResourceError:
    return ResourceError(f"a worker on {platform.node()} lacks a library: {first_line(error)}; install it on all nodes")


def _summary(group: Group, number: int, queued: QueuedJob | ShardedPass, world: World) -> dict[str, Any]:
    if isinstance(queued, ShardedPass):
        with _listening(group, number, queued.label, world) as listener:
            return queued.run(world, listener)
    began, cpu = time.monotonic(), cpu_seconds()
    summary = train_in_worker(group, number, queued, world)
    trained = time.monotonic()
    if world.leads and queued.judge is not None and summary["model"] is not None:
        summary["judged"] = queued.judge(summary["model"])
    return {
        **summary,
        "seconds": round(trained - began, 1),
        "judge_seconds": round(time.monotonic() - trained, 1),
        "cpu_seconds": round(cpu_seconds() - cpu, 1),
    }


def train_in_worker(group: Group, number: int, queued: QueuedJob, world: World) -> dict[str, Any]:
    with _listening(group, number, queued.label, world) as listener:
        return run_training(queued.job, world, _windows(group.cluster, world, listener.on_warning), listener)


@contextmanager
def _listening(group: Group, number: int, label: Label, world: World) -> Iterator[ActorListener]:
    """Tell the run's actor how a job goes, and that this worker lives, while the body runs."""

    def tell(event: Event) -> None:
        group.run_actor.tell.remote(replace(event, job=label))

    heartbeat = Heartbeat(
        lambda beat: group.run_actor.observe_beat.remote(group.name, number, beat, group.cluster.hang_seconds),
        world,
        group.cluster.hang_seconds,
        lambda text: tell(Warned(text)),
    )
    listener = ActorListener(tell, heartbeat, EarlyCheckpoint(world, group.cluster, group.resources))
    with heartbeat.reporting():
        yield listener


def cpu_seconds() -> float:
    """CPU time that this process has used so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _windows(cluster: ClusterSettings, world: World, warn: Callable[[str], None]) -> WindowSource:
    """Ray Data, unless fewer CPUs are left than it needs: then it would wait for ever (a node died, or many joined)."""
    left = ray.cluster_resources().get("CPU", 0.0) - world.size * cluster.cpus_per_worker
    if left >= world.size:
        return RayDataWindows()
    if world.leads:
        warn(f"{left:g} CPUs are left for {world.size} workers to read through: they read by themselves")
    return read_windows


def _use_cores(cluster: ClusterSettings, workers_here: int) -> None:
    """Two processes with two threads each on two cores take many times as long as with one."""
    threads = max(1, min(int(cluster.cpus_per_worker), (os.cpu_count() or 1) // workers_here))
    torch.set_num_threads(threads)
