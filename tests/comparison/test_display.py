"""How the arms of a comparison are dealt to groups of workers, and what a person reads while they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mixdpo_ray.cluster.events import JobEnded, PhaseBegan, StepTaken, Warned
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.comparison.compare import _lanes
from mixdpo_ray.comparison.display import CompareDisplay
from mixdpo_ray.comparison.inputs import Unit
from mixdpo_ray.comparison.job_sequence import RecordedJob
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.storage import join
from tests.training.tiny import make_job


def job(folder: Path, label: str, steps: int) -> RecordedJob:
    return RecordedJob(QueuedJob(make_job(folder, folder / label), label), steps)


def unit(folder: Path, *jobs: tuple[str, int]) -> Unit:
    return Unit(ClusterSettings(), tuple(job(folder, label, steps) for label, steps in jobs), (), ())


def test_the_longest_go_first_and_a_stage_stays_with_its_arms(tmp_path: Path) -> None:
    units = [unit(tmp_path, ("a", 4)), unit(tmp_path, ("stage", 6), ("b", 1), ("c", 1)), unit(tmp_path, ("d", 5))]
    lanes = _lanes(units, 2)
    assert [[one.label for one in lane] for lane in lanes] == [["stage", "b", "c"], ["d", "a"]]
    assert len(_lanes(units, 7)) == 3


def test_each_arm_is_told_as_it_ends_with_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[int] = []
    jobs = [job(tmp_path, "dpo, seed 0", 2), job(tmp_path, "ipo, seed 0", 2)]
    display = CompareDisplay("mine", jobs, 3, lambda: written.append(1))
    display.show(PhaseBegan("loading the model", job="dpo, seed 0"))
    for _ in range(2):
        display.show(StepTaken({"step": 0}, job="dpo, seed 0"))
    summary = {"eval_after": {"eval_rewards/accuracies": 0.75}, "judged": {"quality": 8.5}, "seconds": 4.0}
    display.show(JobEnded(summary, job="dpo, seed 0"))
    display.show(Warned("slow", job="ipo, seed 0"))
    display.show(JobEnded(failure="step 1: the loss is not finite", job="ipo, seed 0"))
    display.show(PhaseBegan("waiting for CPU (have 1, need 2)"))
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "mine: dpo, seed 0: loading the model, 0/4 steps"
    assert lines[0].startswith("mine: 4 of 5 ended: dpo, seed 0: quality 8.500, accuracy 0.750, 4.0 s  ETA 0:0")
    assert lines[1:] == [
        "mine: ipo, seed 0: warning: slow",
        "mine: 5 of 5 ended: ipo, seed 0: failed: step 1: the loss is not finite",
        "mine: waiting for CPU (have 1, need 2)",
    ]
    assert written == [1, 1]


def test_a_job_has_ended_with_a_summary_or_a_failure_and_a_stage_while_its_state_is_there(tmp_path: Path) -> None:
    for mark in ("summary.json", "failure.txt"):
        one = job(tmp_path / mark, "a", 1)
        assert not one.ended
        Path(one.run).mkdir(parents=True)
        Path(join(one.run, mark)).write_text("{}")
        assert one.ended
    stage = RecordedJob(QueuedJob(replace(make_job(tmp_path, tmp_path / "stage"), keeps_state=True), "stage"), 1)
    checkpoint = tmp_path / "stage" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (tmp_path / "stage" / "summary.json").write_text("{}")
    assert not stage.ended
    (checkpoint / "COMMITTED").touch()
    assert stage.ended
