"""Who listens to a training in a worker: the run's actor, the hang detector, and Ray Train."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint

from mixdpo_ray.cluster.early_checkpoint import EarlyCheckpoint
from mixdpo_ray.cluster.events import CheckpointSaved, Evaluated, Event, Noted, PhaseBegan, StepTaken, Warned
from mixdpo_ray.cluster.heartbeat import Heartbeat
from mixdpo_ray.training.listener import STORED_SECONDS
from mixdpo_ray.training.metrics import CHECKPOINT_SECONDS


@dataclass(frozen=True)
class ActorListener:
    tell: Callable[[Event], None]  # the run's actor
    heartbeat: Heartbeat
    early_checkpoint: EarlyCheckpoint

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.tell(StepTaken(metrics))

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        self.tell(Evaluated(metrics))

    def on_phase(self, text: str) -> None:
        self.tell(PhaseBegan(text))

    def on_resume(self, done: int, steps: int) -> None:
        self.tell(Noted(f"continuing at step {min(done + 1, steps)} of {steps}"))

    def on_warning(self, text: str, *, once: bool = False) -> None:
        self.tell(Warned(text, once))

    def at_location(self, location: str | None, *, slow: bool = False) -> None:
        self.heartbeat.at(location, slow=slow)

    def checkpoint_wanted(self) -> str | None:
        return self.early_checkpoint.checkpoint_wanted()

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        """Called by every rank, for Ray's report is a barrier. Ray keeps a pointer: the checkpoint itself is ours."""
        self.early_checkpoint.save_seconds = metrics[STORED_SECONDS]
        if ray.train.get_context().get_world_rank():
            ray.train.report(metrics)
            return
        self.tell(CheckpointSaved(metrics[CHECKPOINT_SECONDS]))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "pointer.json").write_text(json.dumps({"checkpoint": path}))
            ray.train.report(metrics, Checkpoint.from_directory(folder))
