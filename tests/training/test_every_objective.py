"""Every objective through the whole loop: in one process, in two, and killed between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
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
Alone = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def alone(tiny: Path, one: Gang, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """An undisturbed run of one worker, of an objective in a mode."""
    root = tmp_path_factory.mktemp("alone")

    @cache
    def run(name: str, mode: str) -> Path:
        one(train, job_of(tiny, root / name / mode, objective_of(name), mode))
        return root / name / mode

    return run


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_two_workers_that_are_killed_and_continue_train_what_one_does(
    name: str, mode: str, tiny: Path, alone: Alone, two: Gang, tmp_path: Path
) -> None:
    job = job_of(tiny, tmp_path, objective_of(name), mode)
    two(train_until, job, 3)
    two(train, job)
    truth = alone(name, mode)
    for expected, found in zip(told(truth), told(tmp_path), strict=True):
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert found == expected | {name: pytest.approx(value, rel=2e-5, abs=2e-5) for name, value in numbers.items()}
    assert unlike(weights(tmp_path), weights(truth)) < 2e-5


@pytest.mark.parametrize("name", LOOKING)
def test_what_an_objective_remembers_of_earlier_steps_is_continued_to_the_same_bits(
    name: str, tiny: Path, two: Gang, tmp_path: Path
) -> None:
    """Those that remember nothing leave nothing in a checkpoint: what is continued there is one run for all."""
    killed, undisturbed = (job_of(tiny, tmp_path / run, objective_of(name), "router") for run in ("killed", "whole"))
    two(train, undisturbed)
    two(train_until, killed, 3)
    two(train, killed)
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "whole")) == 0


@pytest.mark.parametrize("name", ["kto", "amapo", "selective_tokens"])
def test_looking_and_reading_tokens_work_where_every_rank_must_run_every_pass(
    name: str, tiny: Path, alone: Alone, two: Gang, tmp_path: Path
) -> None:
    """ZeRO-3, in a window whose two hard pairs leave some micro-batch without an easy one."""
    two(train, job_of(tiny, tmp_path, objective_of(name), "router", 3))
    assert unlike(weights(tmp_path), weights(alone(name, "router"))) < 2e-5
