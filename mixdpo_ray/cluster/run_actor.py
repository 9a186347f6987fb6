"""Claiming a run's actor, whose name is the run's lock inside a cluster."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray.cluster.progress import RunActor
from mixdpo_ray.errors import RunConflictError

NAMESPACE = "mixdpo_ray"


def claim_run(run: str) -> Any:
    """A killed run's actor lives on for some seconds.

    It lies on the driver's node: no other node's death may take it away.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class: Any = RunActor  # a Ray actor class: its own attributes are not the plain class's
    name = f"board-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    for _ in range(20):
        try:
            return actor_class.options(name=name, namespace=NAMESPACE, scheduling_strategy=here).remote()
        except ValueError:
            time.sleep(1)
    raise RunConflictError(f"{run} is in use by another job of this cluster: wait for it, or choose another name")
