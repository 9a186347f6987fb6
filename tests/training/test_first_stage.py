"""A first stage that several runs share: each of them ends as if it had trained it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import CheckpointError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.first_stage import first_stage, stage_job
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.settings import EvaluationSettings, ScheduleSettings
from tests.training.gang import Gang
from tests.training.test_loop import lines, train, train_until, unlike, weights
from tests.training.tiny import make_job


def ratio(share: float, **more: Any) -> ScheduleSettings:
    return ScheduleSettings.model_validate({"stage2_lr_ratio": share, **more})


def stage_name(tiny: Path, run: Path, **changes: Any) -> str:
    job = make_job(tiny, run, **changes)
    return first_stage(job, PreparedTable.open(job.prepared), "stages").fingerprint


def told(run: Path) -> list[dict[str, Any]]:
    """Every line of the metrics but what a clock tells."""
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines(run)]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_whoever_begins_with_a_shared_stage_ends_where_it_would_alone(
    tiny: Path, two: Gang, tmp_path: Path, zero_stage: int
) -> None:
    """Bit for bit, and so do its metrics: with both rates of the second stage, and without a second stage."""
    arms: dict[str, dict[str, Any]] = {
        "slow": {"schedule": ratio(0.1)},
        "fast": {"schedule": ratio(2.0)},
        "none": {"curriculum": {"mode": "discard_hard"}},
    }

    def job(name: str, place: str) -> TrainingJob:
        return make_job(tiny, tmp_path / place / name, zero_stage=zero_stage, **arms[name])

    first = job("slow", "shared")
    stage = first_stage(first, PreparedTable.open(first.prepared), str(tmp_path / "stages"))
    assert stage.step == 3
    summary = two(train, stage_job(first, stage))[0]
    assert (summary["steps"], summary["model"]) == (3, None)
    for name in arms:
        two(train, job(name, "alone"))
        two(train, replace(job(name, "shared"), start_from=stage))
        without_export, shared = tmp_path / "alone" / name, tmp_path / "shared" / name
        assert unlike(weights(shared), weights(without_export)) == 0
        assert told(shared) == told(without_export)
        for file in (BEFORE, AFTER):
            assert (shared / file).read_bytes() == (without_export / file).read_bytes()
    assert unlike(weights(tmp_path / "shared" / "slow"), weights(tmp_path / "shared" / "fast")) > 0


def test_a_run_that_began_with_a_shared_stage_and_was_killed_continues_at_its_own_checkpoint(
    tiny: Path, two: Gang, tmp_path: Path
) -> None:
    job = make_job(tiny, tmp_path / "run", checkpoints={"every_steps": 1})
    stage = first_stage(job, PreparedTable.open(job.prepared), str(tmp_path / "stages"))
    two(train, stage_job(job, stage))
    two(train_until, replace(job, start_from=stage), 4)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-4"]
    two(train, replace(job, start_from=stage))
    two(train, replace(job, run=str(tmp_path / "alone")))
    assert unlike(weights(tmp_path / "run"), weights(tmp_path / "alone")) == 0


def test_a_stage_that_was_not_trained_is_no_beginning(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path / "run")
    stage = first_stage(job, PreparedTable.open(job.prepared), str(tmp_path / "stages"))
    with pytest.raises(CheckpointError, match="does not hold step-3"):
        two(train, replace(job, start_from=stage))


def test_what_comes_after_the_switch_makes_no_other_first_stage(tiny: Path, tmp_path: Path) -> None:
    same: list[dict[str, Any]] = [
        {"schedule": ratio(0.1)},
        {"curriculum": {"mode": "discard_hard"}},
        {"curriculum": {"sft_norm": "example_sum", "sft_weight": 3.0}},
        {"checkpoints": {"every_steps": 1}},
    ]
    assert {stage_name(tiny, tmp_path / f"{number}", **one) for number, one in enumerate(same)} == {
        stage_name(tiny, tmp_path)
    }


def test_whatever_moves_a_step_before_the_switch_makes_another_first_stage(tiny: Path, tmp_path: Path) -> None:
    other: list[dict[str, Any]] = [
        {"objective": DPO(beta=0.2)},
        {"objective": SimPO()},
        {"curriculum": {"threshold": {"value": 1.0}}},
        {"curriculum": {"mode": "sorted_dpo"}},
        {"curriculum": {"mode": "router"}},
        {"curriculum": {"thin": 2}},
        {"schedule": ratio(1.0, kind="single")},
        {"schedule": ratio(1.0, warmup_steps=0.5)},
        {"optimizer": {"learning_rate": 2e-3}},
        {"optimizer": {"learning_rate": 1e-3, "weight_decay": 0.1}},
        {"seed": 7},
        {"global_batch_size": 4},
        {"num_train_epochs": 2},
        {"optimizer": {"learning_rate": 1e-3, "max_grad_norm": 0.5}},
        {"model": {"dtype": "bfloat16"}},
        {"zero_stage": 1},
        {"evaluation": EvaluationSettings(every_steps=1)},
    ]
    names = {stage_name(tiny, tmp_path), *(stage_name(tiny, tmp_path, **one) for one in other)}
    assert len(names) == 1 + len(other)


def test_the_weight_of_sft_counts_where_hard_pairs_are_trained_before_a_switch(tiny: Path, tmp_path: Path) -> None:
    routed = {"mode": "router"}
    assert stage_name(tiny, tmp_path, curriculum=routed) != stage_name(
        tiny, tmp_path, curriculum={**routed, "sft_weight": 2.0}
    )
