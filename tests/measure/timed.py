"""A training run with a clock: when each step ended, and how much of it forward, backward and optimizer took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mixdpo_ray.training import loop as loop_module
from mixdpo_ray.training import step as step_module
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.measure.clock import now


class Stamps(Silent):
    """When each of our steps ended, and its loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ends: list[float] = []
        self.padding: list[float] = []

    def on_step(self, metrics: dict[str, Any]) -> None:
        """Its numbers have been read from the device, which is done."""
        self.losses.append(metrics["loss"])
        self.ends.append(time.perf_counter())
        self.padding.append(metrics["perf/padding_fraction"])


class Spent:
    """Seconds inside functions that are wrapped with it, with the device's work that they began."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = now(self.device)
            result = function(*arguments, **named)
            self.seconds += now(self.device) - began
            return result

        return timed


def timed_training(job: TrainingJob, world: World) -> dict[str, Any]:
    """Losses, seconds of every step but the first, and the share of them outside forward, backward and optimizer.

    Parts of the loop are replaced for good: one such run per process.
    """
    stamps, spent = Stamps(), Spent(world.device)
    for name in ("logps", "backward", "update"):
        setattr(Policy, name, spent.wrap(vars(Policy)[name]))
    timed_step, inside = step_module.train_step, []

    def train_step(policy: Any, *arguments: Any) -> Any:
        before = spent.seconds
        result = timed_step(policy, *arguments)
        inside.append(spent.seconds - before)
        return result

    vars(loop_module)["train_step"] = train_step
    run_training(job, world, listener=stamps)
    seconds = np.diff(stamps.ends)
    outside = 1 - sum(inside[1:]) / seconds.sum()
    padding = statistics.mean(stamps.padding)
    return {"losses": stamps.losses, "seconds": seconds.tolist(), "outside": outside, "padding": padding}
