"""Every objective through the whole loop: in one process, in two, and killed between them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings, OptimizerSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import train_until, unlike, weights
from tests.training.tiny import make_job

OWN: dict[str, dict[str, Any]] = {"gamma_dpo": {"queue": 20}, "gamma_simpo": {"queue": 20}}


def objective_of(name: str) -> Objective:
    return OBJECTIVES[name](**OWN.get(name, {}))


def job_of(tiny: Path, run: Path, objective: Objective, mode: str, zero_stage: int = 2) -> TrainingJob:
    """Steps of 8 pairs. In a router two easy windows, a mixed one, a hard one.

    The reference is not the policy: where they are equal some losses have a corner, and rounding decides its side.
    """
    optimizer = OptimizerSettings(learning_rate=1e-3, adam_epsilon=1e-4)  # tiny gradients are mostly rounding
    job = make_job(
        tiny, run, objective=objective, curriculum={"mode": mode}, optimizer=optimizer, zero_stage=zero_stage,
        checkpoints=CheckpointSettings(every_steps=2), model={"reference": "apart"},
    )  # fmt: skip
    return replace(job, reference=str(tiny / "apart")) if job.reference else job


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    return run_training(job, world)


def told(run: Path) -> list[dict[str, Any]]:
    """What a run wrote, without how long it took."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in found]


LOOKING = [name for name, kind in OBJECTIVES.items() if issubclass(kind, StepObjective)]
CASES = [
    *((name, "router") for name in OBJECTIVES),
    *((name, mode) for name in LOOKING for mode in ("two_stage", "sorted_dpo")),
]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_two_workers_train_what_one_does_and_a_killed_run_continues_exactly(
    name: str, mode: str, tiny: Path, one: Gang, two: Gang, tmp_path: Path
) -> None:
    objective = objective_of(name)
    one(train, job_of(tiny, tmp_path / "one", objective, mode))
    two(train, job_of(tiny, tmp_path / "two", objective, mode))
    killed = job_of(tiny, tmp_path / "killed", objective, mode)
    two(train_until, killed, 3)
    two(train, killed)
    for alone, together in zip(told(tmp_path / "one"), told(tmp_path / "two"), strict=True):
        numbers = {name: value for name, value in alone.items() if isinstance(value, float)}
        assert together == alone | {name: pytest.approx(value, rel=2e-5, abs=2e-5) for name, value in numbers.items()}
    assert unlike(weights(tmp_path / "two"), weights(tmp_path / "one")) < 2e-5
    assert told(tmp_path / "killed") == told(tmp_path / "two")
    assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "two")) == 0


@pytest.mark.parametrize("name", ["kto", "amapo", "selective_tokens"])
def test_looking_and_reading_tokens_work_where_every_rank_must_run_every_pass(
    name: str, tiny: Path, two: Gang, tmp_path: Path
) -> None:
    """ZeRO-3, in a window whose two hard pairs leave some micro-batch without an easy one."""
    objective = objective_of(name)
    for zero_stage in (2, 3):
        two(train, job_of(tiny, tmp_path / str(zero_stage), objective, "router", zero_stage))
    assert unlike(weights(tmp_path / "3"), weights(tmp_path / "2")) < 2e-5
