"""Reasons to save a checkpoint at once: a machine is about to be taken away, or there is room for more workers.

Ray Train restarts the group in both cases, from the newest checkpoint; what was trained since then would be done again.
Every rank has to save together, so they agree on when to look, which costs one number per step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import ray
import ray.train
import torch
import torch.distributed as dist

from mixdpo_ray.cluster.connect import room_on_nodes
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.world import World

SECONDS = 5.0  # between two looks
RESIZE_SECONDS = 30.0  # between two looks of Ray Train, which restarts the group where it could be larger


class EarlyCheckpoint:
    """One worker's reasons to save a checkpoint at once. `needs`: what a worker reserves."""

    def __init__(self, world: World, cluster: ClusterSettings, needs: Mapping[str, float]):
        self.world, self.cluster, self.needs = world, cluster, needs
        self.looked = time.monotonic()
        self.leaving: set[str] = set()  # nodes that a checkpoint was saved for
        self.room = max(world.size, room(needs))

    def checkpoint_wanted(self) -> str | None:
        """Collective: the same answer on every rank, once for each reason."""
        if not self._any(time.monotonic() - self.looked > SECONDS):
            return None
        self.looked = time.monotonic()
        notice = ray.train.get_preemption_info()
        if notice is not None and not self.leaving.issuperset(notice.preempted_node_ids):
            self.leaving.update(notice.preempted_node_ids)
            ranks = ", ".join(map(str, notice.preempted_ranks))
            return f"the machine of rank {ranks} is about to be taken away"
        if self.cluster.elastic and self.world.size < self.cluster.most_workers and self._any(self._has_grown()):
            return "there is room for more workers"
        return None

    def _has_grown(self) -> bool:
        before, self.room = self.room, max(self.room, room(self.needs))
        return self.room > before

    def _any(self, here: bool) -> bool:
        flag = torch.tensor(float(here), device=self.world.torch_device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())


def room(needs: Mapping[str, float]) -> int:
    """Workers that the living nodes could hold."""
    return sum(room_on_nodes([node["Resources"] for node in ray.nodes() if node["Alive"]], needs))
