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
from mixdpo_ray.cluster.node_labels import offered_by
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.world import World
from mixdpo_ray.wording import duration_text

SECONDS = 5.0  # between two looks
RESIZE_SECONDS = 30.0  # between two looks of Ray Train, which restarts the group where it could be larger


class EarlyCheckpoint:
    """One worker's reasons to save a checkpoint at once. `needs`: what a worker reserves."""

    def __init__(self, world: World, cluster: ClusterSettings, needs: Mapping[str, float]):
        self.world, self.cluster, self.needs = world, cluster, needs
        self.looked = time.monotonic()
        self.save_seconds: float | None = None  # that the last checkpoint took until it counted
        self.leaving: set[str] = set()  # nodes that a checkpoint was saved for
        self.room = max(world.size, room(cluster, needs)) if cluster.elastic else world.size

    def checkpoint_wanted(self) -> str | None:
        """Collective: the same answer on every rank, once for each reason.

        A notice is answered at once, since what a machine leaves of its time is seldom more than a checkpoint takes.
        """
        if not self._any(time.monotonic() - self.looked > SECONDS):
            return None
        self.looked = time.monotonic()
        notice = ray.train.get_preemption_info()
        if notice is not None and not self.leaving.issuperset(notice.preempted_node_ids):
            self.leaving.update(notice.preempted_node_ids)
            ranks = ", ".join(map(str, notice.preempted_ranks))
            return f"the machine of rank {ranks} is about to be taken away{self._in_time(notice.deadline_ms)}"
        if self.cluster.elastic and self.world.size < self.cluster.most_workers and self._any(self._has_grown()):
            return "there is room for more workers"
        return None

    def _in_time(self, deadline_ms: float | None) -> str:
        """What a person should know where a notice comes later than a checkpoint needs."""
        took, left = self.save_seconds, None if deadline_ms is None else deadline_ms / 1000 - time.time()
        if took is None or left is None or took < left:
            return ""
        return (
            f" in {duration_text(max(0.0, left))}, and the last checkpoint took {duration_text(took)}: if this one is "
            "not in time, the run goes on from that one (save more often, or to a faster storage)"
        )

    def _has_grown(self) -> bool:
        before, self.room = self.room, max(self.room, room(self.cluster, self.needs))
        return self.room > before

    def _any(self, here: bool) -> bool:
        flag = torch.tensor(float(here), device=self.world.torch_device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())


def room(cluster: ClusterSettings, needs: Mapping[str, float]) -> int:
    """Workers that the living nodes could hold."""
    return sum(room_on_nodes([offered_by(cluster, node) for node in ray.nodes() if node["Alive"]], needs))
