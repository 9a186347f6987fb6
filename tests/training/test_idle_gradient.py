"""A training that goes on although nothing is learned any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.training.idle_gradient import PATIENCE, IdleGradient
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import OptimizerSettings
from mixdpo_ray.training.world import World
from tests.training.tiny import make_job


def steps(*norms: float, loss: float = 2.0) -> list[dict[str, Any]]:
    return [{"step": step, "grad_norm": norm, "loss": loss} for step, norm in enumerate(norms)]


def test_a_gradient_that_stays_0_is_told_once_and_stays_known() -> None:
    gradient = IdleGradient()
    said = [gradient.observe(line) for line in [*steps(1.0, *[0.0] * 9), {"kind": "eval", "step": 10}]]
    assert [number for number, warning in enumerate(said) if warning] == [PATIENCE]
    assert gradient.warning is not None
    assert gradient.warning.startswith("from step 1 on the gradient is exactly 0 and the loss is 2: nothing is learned")


@pytest.mark.parametrize("lines", [steps(*[0.0, 0.0, 0.0, 0.0, 1e-9] * 3), steps(*[0.0] * 9, loss=0.0)])
def test_a_pause_and_a_loss_of_0_are_no_matter(lines: list[dict[str, Any]]) -> None:
    assert IdleGradient(lines).warning is None


class Hearing(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, text: str, *, once: bool = False) -> None:
        self.warnings.append(text)


def test_a_training_at_an_absurd_rate_says_that_it_learns_nothing(tiny: Path, tmp_path: Path) -> None:
    listener = Hearing()
    job = make_job(tiny, tmp_path, optimizer=OptimizerSettings(learning_rate=1e4), num_train_epochs=4)
    run_training(job, World(), listener=listener)
    assert ["nothing is learned any more" in warning for warning in listener.warnings] == [True]
