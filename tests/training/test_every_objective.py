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


def job_of(tiny: Path, run: Path, objective: Objective, mode: str, zero_stage: int = 2, **train: Any) -> TrainingJob:
    """Steps of 8 pairs. In a router two easy windows, a mixed one, a hard one.

    The reference is not the policy: where they are equal some losses have a corner, and rounding decides its side.
    """
    optimizer = OptimizerSettings(learning_rate=1e-3, adam_epsilon=1e-4)  # tiny gradients are mostly rounding
    job = make_job(
        tiny, run, objective=objective, curriculum={"mode": mode}, optimizer=optimizer, zero_stage=zero_stage,
        model={"reference": "apart"}, **train,
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
Trained = Callable[[int, str, str], Path]


@pytest.fixture(scope="module")
def trained(tiny: Path, one: Gang, two: Gang, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An undisturbed run of so many workers, of an objective in a mode; each is made once.

    One alone takes 4 pairs at a time, two of them 2 each: no step is split in the same way by both.
    """
    root = tmp_path_factory.mktemp("trained")

    @cache
    def run(workers: int, name: str, mode: str) -> Path:
        folder = root / f"{workers}-{name}-{mode}"
        pairs = {1: 4, 2: 2}[workers]
        job = job_of(tiny, folder, objective_of(name), mode, per_device_train_batch_size=pairs)
        {1: one, 2: two}[workers](train, job)
        return folder

    return run


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_two_workers_train_what_one_does(name: str, mode: str, trained: Trained) -> None:
    without_export, together = trained(1, name, mode), trained(2, name, mode)
    for expected, found in zip(told(without_export), told(together), strict=True):
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert found == expected | {name: pytest.approx(value, rel=2e-5, abs=2e-5) for name, value in numbers.items()}
    assert unlike(weights(together), weights(without_export)) < 2e-5


@pytest.mark.parametrize("name", LOOKING)
def test_what_an_objective_remembers_of_earlier_steps_is_continued_to_the_same_bits(
    name: str, tiny: Path, trained: Trained, two: Gang, tmp_path: Path
) -> None:
    """Of the others a checkpoint holds nothing: that a killed run continues exactly is shown for one of them."""
    checkpoints = CheckpointSettings(every_steps=2)
    killed = job_of(tiny, tmp_path, objective_of(name), "router", checkpoints=checkpoints)
    undisturbed = trained(2, name, "router")
    two(train_until, killed, 3)
    two(train, killed)
    assert told(tmp_path) == told(undisturbed)
    assert unlike(weights(tmp_path), weights(undisturbed)) == 0


@pytest.mark.parametrize("name", ["kto", "amapo", "selective_tokens"])
def test_looking_and_reading_tokens_work_where_every_rank_must_run_every_pass(
    name: str, tiny: Path, trained: Trained, two: Gang, tmp_path: Path
) -> None:
    """ZeRO-3, in a window whose two hard pairs leave some micro-batch without an easy one."""
    two(train, job_of(tiny, tmp_path, objective_of(name), "router", 3))
    assert unlike(weights(tmp_path), weights(trained(2, name, "router"))) < 2e-5


@pytest.mark.parametrize("name", ["dpo", "kto", "amapo", "selective_tokens"])
def test_packed_rows_end_where_padded_ones_do(
    name: str, tiny: Path, trained: Trained, two: Gang, tmp_path: Path
) -> None:
    job = job_of(tiny, tmp_path, objective_of(name), "router", 3)
    two(train, replace(job, model=job.model.model_copy(update={"packing": True})))
    assert unlike(weights(tmp_path), weights(trained(2, name, "router"))) < 2e-5
