"""What a worker group is handed: once what its workers must know, and then job after job."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.job import TrainingJob


@dataclass(frozen=True)
class Group:
    """What its workers are told when they start."""

    name: str  # of its queue
    run_actor: Any
    cluster: ClusterSettings
    gpu: bool
    resources: dict[str, float]  # of each worker


@dataclass(frozen=True)
class QueuedJob:
    """A training, and what is to be done with the model that it leaves."""

    job: TrainingJob
    label: str | int | None = None  # whose steps these are, where a run's actor hears of several jobs
    judge: Callable[[str], dict[str, float]] | None = None  # of the exported model, called by rank 0

    def packed(self) -> bytes:
        return pickle.dumps(self)
