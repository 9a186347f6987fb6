"""A training ends in time with a checkpoint, and the same job continues to the same bits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.training.deadline import END_SECONDS, GO_ON, MEASURE, STOP, Deadline
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import steps, train, unlike, weights
from tests.training.tiny import make_job

LATE = 3600.0


def train_in_time(world: World, job: TrainingJob, seconds: float) -> dict[str, Any]:
    return run_training(replace(job, stop_at=time.time() + seconds), world)


def test_a_training_stops_in_time_and_continues_to_the_same_bits(tiny: Path, two: Gang, tmp_path: Path) -> None:
    whole, job = make_job(tiny, tmp_path / "whole"), make_job(tiny, tmp_path / "stopped")
    two(train, whole)
    began = time.time()
    said = two(train_in_time, job, -LATE)
    assert [one["stopped"] for one in said] == [1, 1], "a job that has no time left still takes one step"
    assert said[0]["model"] is None
    assert not Path(job.run, "model").exists()
    assert time.time() - began < 60
    assert [path.name for path in Path(job.run, "checkpoints").iterdir()] == ["step-1"]
    summary = two(train_in_time, job, LATE)[0]
    assert [line["step"] for line in steps(job.run)] == [0, 1, 2, 3, 4]
    assert summary["steps"] == 5
    assert unlike(weights(job.run), weights(whole.run)) == 0


@pytest.mark.parametrize(
    ("at", "save_seconds", "decided"),
    [
        (200.0, 10.0, GO_ON),
        (200.0, None, GO_ON),  # less than half of the time is over
        (150.0, None, MEASURE),
        (150.0, 10.0, GO_ON),
        (140.0 + END_SECONDS, 10.1, STOP),  # a step of 30 s, and a checkpoint
    ],
)
def test_what_is_left_for_a_step_and_a_checkpoint_is_as_long_as_they_took(
    at: float, save_seconds: float | None, decided: float
) -> None:
    deadline = Deadline(at, World(0, 1, 0, "cpu"))
    deadline.began = deadline.looked = 0.0
    for now in (60.0, 65.0, 95.0):  # the first step compiles; the third one evaluates
        deadline._decision(1e9, None, now)
    assert deadline._decision(at, save_seconds, 100.0) == decided


def test_without_a_deadline_nothing_is_asked() -> None:
    assert Deadline(None, World(0, 1, 0, "cpu")).checkpoint_wanted(None) is None  # no process group is there
