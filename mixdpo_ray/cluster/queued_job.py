"""What a worker group is handed: a training, and what is to be done with the model that it leaves."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from mixdpo_ray.training.job import TrainingJob


@dataclass(frozen=True)
class QueuedJob:
    job: TrainingJob
    label: str | int | None = None  # whose steps these are, where a run's actor hears of several jobs
    judge: Callable[[str], dict[str, float]] | None = None  # of the exported model, called by rank 0

    def packed(self) -> bytes:
        return pickle.dumps(self)
