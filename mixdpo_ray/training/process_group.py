"""The group of processes that train together."""

from __future__ import annotations

from dataclasses import replace

import torch.distributed as dist

from mixdpo_ray.errors import ResourceError
from mixdpo_ray.training.world import World


def join_group(world: World, sequence_parallel: int = 1) -> World:
    """The world as trainings share it. Its group comes from whoever started the workers; a single process makes one."""
    if world.size % sequence_parallel:
        raise ResourceError(
            f"deepspeed.sequence_parallel {sequence_parallel} does not divide {world.size} workers: change either"
        )
    world = replace(world, sequence_parallel=sequence_parallel)
    if dist.is_initialized():
        return world
    if world.size != 1:
        raise ResourceError(f"rank {world.rank} of {world.size} has no process group: start the workers through Ray")
    backend = "nccl" if world.torch_device.type == "cuda" else "gloo"
    store = dist.HashStore()  # type: ignore[attr-defined]  # as its documentation names it
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    return world
