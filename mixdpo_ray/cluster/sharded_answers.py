"""The driver's side of a pass in shards: the workers are started, and what they hand in comes as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.connect import missing_resources
from mixdpo_ray.cluster.events import Event, Noted, PhaseBegan, Warned
from mixdpo_ray.cluster.progress import watching
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_workers import queue_name, run_workers
from mixdpo_ray.cluster.sharded_pass import Batches, PassAnswers, ShardedPass
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.tables.keyed_table import PASSES


class _Display:
    """What people can act on; how far the pass has come is told by whoever asked for it."""

    def __init__(self, title: str):
        self.title, self.phase = title, ""

    def show(self, event: Event) -> None:
        match event:
            case Warned(text):
                say(f"warning: {text}")
            case Noted(text):
                say(f"{self.title}: {text}")
            case PhaseBegan(text) if text != self.phase:
                self.phase = text
                say(f"{self.title}: {text}", meanwhile=f"{self.title}: {text}")


def answers_in_shards(
    work: ShardedPass, batches: Batches, cluster: ClusterSettings, storage_path: str
) -> Iterator[pa.Table]:
    """What the batches come to, as it comes. The workers end with it, and with whoever asks no more."""
    queue = queue_name()
    folder = storage.join(storage_path, PASSES, queue)  # where Ray may write
    run_actor, actor_class = claim_run(folder), PassAnswers
    answers: Any = actor_class.remote(batches)  # type: ignore[attr-defined]
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    follow = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_follow)
    running = follow.remote(
        cluster, queue, ShardedPass(work.title, work.actor, work.arguments, work.offload, answers), folder, run_actor
    )
    try:
        with (
            watching(run_actor, _Display(work.title), partial(missing_resources, cluster, to_start=False)),
            plain_errors(),
        ):
            while True:
                ended = bool(ray.wait([running], timeout=0)[0])
                yield from ray.get(answers.take.remote())
                if ended:
                    ray.get(running)
                    return
    finally:
        ray.cancel(running, force=True)
        ray.get(run_actor.abandon_queue.remote(queue))
        for actor in (answers, run_actor):
            ray.kill(actor)
        storage.delete(folder)


def _follow(cluster: ClusterSettings, queue: str, work: ShardedPass, folder: str, run_actor: Any) -> None:
    """Follow the workers in a process of its own: threads of the driver would not let it end in peace."""
    ray.get(run_actor.queue_job.remote(queue, folder, work.packed(), work.label))
    ray.get(run_actor.close_queue.remote(queue))
    try:
        run_workers(cluster, queue, folder, run_actor)
    finally:
        ray.get(run_actor.abandon_queue.remote(queue))
    ray.get(run_actor.ended.remote(queue, 0)).result()
