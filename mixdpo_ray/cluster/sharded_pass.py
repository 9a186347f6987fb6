"""Batches through one model that a group of workers holds in shards, under Ray Train as a training is.

What a batch comes to is handed in as soon as it is known, and asked for by the driver, who keeps it. So workers that
are started again, after a death or a hang, go through what is left; and so does the same command after the driver's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle

from mixdpo_ray.errors import ResourceError
from mixdpo_ray.training.listener import Listener
from mixdpo_ray.training.world import World

Batches = Sequence[Mapping[str, Any]]
SECONDS_TO_WAIT = 0.5  # for an answer, before it is asked whether the workers are still there


@dataclass(frozen=True)
class ShardedPass:
    """What a group of workers is handed instead of a training. `actor`: as of a pool (actor_pool.py)."""

    title: str
    actor: type
    arguments: tuple[Any, ...]
    offload: bool
    answers: Any = None  # the actor that has the batches, and takes in what they come to
    label: None = None

    def packed(self) -> bytes:
        packed: bytes = cloudpickle.dumps(self)
        return packed

    def run(self, world: World, listener: Listener) -> dict[str, Any]:
        """Collective: every rank goes through its share."""
        import torch

        from mixdpo_ray.training.model_loading import InShards
        from mixdpo_ray.training.process_group import join_group
        from mixdpo_ray.training.scoring_pass import answers_of_rank

        join_group(world)
        where = f"{self.title}, loading the model"
        listener.at_location(where, slow=True)
        left: list[int] = _as_rank_0_says(world, partial(ray.get, self.answers.left.remote()))
        batches = [{name: [value] for name, value in one.items()} for one in self._batches(left)]  # as Ray Data's are

        def move() -> None:
            listener.at_location(f"{self.title}, among {len(left)} batches", slow=True)

        model = self.actor(*self.arguments, InShards(world, self.offload, move))
        try:
            for number, rows in answers_of_rank(model, batches, world):
                ray.get(self.answers.put.remote(left[number], rows))
        except torch.cuda.OutOfMemoryError:  # the others wait for this rank, so that it cannot go on with half of them
            raise ResourceError(
                f"{self.title}: rank {world.rank} has no memory for a batch beside its shard: raise "
                "cluster.num_workers, set deepspeed.offload_parameters=true, or use larger GPUs"
            ) from None
        listener.at_location(None)
        return {}

    def _batches(self, numbers: Sequence[int]) -> Batches:
        batches: Batches = ray.get(self.answers.batches_of.remote(numbers))
        return batches


def _as_rank_0_says(world: World, asked: Any) -> Any:
    """The same on every rank, whatever changes in the meantime."""
    import torch.distributed as dist

    said = [asked() if world.leads else None]
    if world.size > 1:
        dist.broadcast_object_list(said, device=world.torch_device)
    return said[0]


@ray.remote(num_cpus=0, max_concurrency=1000)
class PassAnswers:
    """The batches of a pass, and what they came to until the driver takes it."""

    def __init__(self, batches: Batches):
        self.batches, self.answered, self.waiting = batches, set[int](), list[pa.Table]()
        self.come = asyncio.Event()

    async def left(self) -> list[int]:
        return [number for number in range(len(self.batches)) if number not in self.answered]

    async def batches_of(self, numbers: Sequence[int]) -> Batches:
        return [self.batches[number] for number in numbers]

    async def put(self, number: int, rows: pa.Table) -> None:
        """Once each: a group that died may have handed it in, and the next one again."""
        if number not in self.answered:
            self.answered.add(number)
            self.waiting.append(rows)
            self.come.set()

    async def take(self) -> list[pa.Table]:
        """What has come since it was last asked; waits a little for it."""
        if not self.waiting:
            try:
                await asyncio.wait_for(self.come.wait(), SECONDS_TO_WAIT)
            except TimeoutError:
                return []
        taken, self.waiting = self.waiting, []
        self.come.clear()
        return taken
