"""What Ray Train is handed. Its controller imports this file to pass it on, and would import all that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixdpo_ray.recipe.cluster import ClusterSettings


@dataclass(frozen=True)
class Group:
    """What its workers are told when they start."""

    name: str  # of its queue
    run_actor: Any
    cluster: ClusterSettings
    gpu: bool
    resources: dict[str, float]  # of each worker


def work(config: dict[str, bytes]) -> None:
    """The group stays bytes until a worker opens it: in the controller that would cost seconds of imports."""
    import pickle

    from mixdpo_ray.cluster.worker import train_what_is_queued

    train_what_is_queued(pickle.loads(config["group"]))
