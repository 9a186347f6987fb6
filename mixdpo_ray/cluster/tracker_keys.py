"""Whether nodes that may run rank 0 have what its trackers need: a key, or an address."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray.cluster.connect import room_on_nodes, worker_resources
from mixdpo_ray.cluster.node_labels import offered_by
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tracking.settings import TrackerSettings, lacking_here

_PATIENCE = 20.0  # seconds


def lacks_of_trackers(recipe: Recipe) -> str | None:
    """What the first node lacks that has room for a worker and lacks anything. Ray is connected."""
    trackers = recipe.output.trackers
    if not trackers:
        return None
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    room = room_on_nodes([offered_by(recipe.cluster, node) for node in alive], worker_resources(recipe.cluster))
    for node, count in zip(alive, room, strict=True):
        if count and (lacking := _asked(node["NodeID"], here, trackers)):
            where = f" on {node['NodeManagerHostname']}" if len(alive) > 1 else ""
            return f"{lacking}{where}"
    return None


def _asked(node: str, here: str, trackers: Mapping[str, TrackerSettings]) -> str | None:
    if node == here:
        return lacking_here(trackers)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ask = ray.remote(num_cpus=0, max_retries=0)(lacking_here).options(scheduling_strategy=there)
    answer: str | None = ray.get(ask.remote(trackers), timeout=_PATIENCE)
    return answer
