"""A run that dies, repeated with the same command, ends with the weights of the run that did not, bit for bit.

One run dies in every way, one death after the other, and is compared once with the run that nobody disturbs; `make
chaos` adds ten runs with a death at a random moment.
"""

from __future__ import annotations

import random
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs.trainings import Training, assert_same_end, job, title, undisturbed, write_world

STEPS, SAVE_EVERY = 140, 20
SETTINGS = f"""
curriculum: {{threshold: {{hard_count: 32}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 4
  num_train_epochs: 6
  max_steps: {STEPS}
  optimizer: {{learning_rate: 1e-3}}
  checkpoints: {{every_steps: {SAVE_EVERY}}}
cluster: {{num_workers: 2, reference_workers: 1, use_gpu: false, hang_seconds: 3, max_failures: 20}}
"""
pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Life:
    """What was said between one death of a driver and the next."""

    training: Training
    until_killed: str
    until_interrupted: str
    at_the_end: tuple[int, str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("death"), SETTINGS, pairs=420)


@pytest.fixture(scope="module")
def life(folder: Path, local_ray: None) -> Life:
    """Two drivers with a Ray of their own, and this process, which finishes the run on the tests' Ray."""
    with closing(Training(folder, "died")) as training:
        training.start()
        training.wait_for_steps(3)
        kill_worker(training, 1)
        training.wait_for_steps(SAVE_EVERY + 15)  # saving may take longer than other places until it counts as a hang
        hang(training)
        training.wait_for_steps(2 * SAVE_EVERY + 5)
        kill_while_saving(training)
        training.kill()  # as where a machine has lost power
        until_killed = training.said()
        training.assert_gone()

        training.start()
        training.wait_for_steps(len(training.steps()) + 8)
        training.interrupt()
        until_interrupted = training.finish(130)
        training.assert_gone()
        assert len(training.steps()) < STEPS
    return Life(training, until_killed, until_interrupted, job("train", *training.arguments))


@pytest.fixture(scope="module")
def calm(life: Life, folder: Path) -> Path:
    return undisturbed(folder, world=2)


def hang(training: Training) -> None:
    """One worker stands still; it is named, and the group is started again without anybody's help."""
    worker = training.workers()[0]
    worker.suspend()
    training.wait_until(lambda: "starting the workers again" in training.said())
    training.wait_until(lambda: not title(worker))


def kill_worker(training: Training, number: int) -> None:
    """Ray Train starts the group again; nobody has to repeat anything."""
    training.workers()[number].kill()


def kill_while_saving(training: Training) -> None:
    """While shards are on disk and the commit mark is not; at a later checkpoint where it was already."""
    while (step := _next_save(training)) < STEPS:
        workers, half = training.workers(), training.run / "checkpoints" / f"step-{step}"
        training.wait_until(half.exists, pause=0.002)
        for worker in workers:
            worker.kill()
        if not (half / "COMMITTED").exists():
            return
        training.wait_for_steps(step + 1)
    raise AssertionError("no checkpoint was caught half-written")


def _next_save(training: Training) -> int:
    return (len(training.steps()) // SAVE_EVERY + 1) * SAVE_EVERY


def test_a_run_that_died_in_every_way_ends_as_the_run_that_did_not(life: Life, calm: Path) -> None:
    assert len(life.training.steps()) == STEPS
    assert_same_end(life.training.run, calm)


def test_a_worker_that_hangs_is_named_and_the_group_started_again(life: Life) -> None:
    assert "has not answered since step" in life.until_killed
    assert "starting the workers again" in life.until_killed


def test_an_interrupted_job_says_that_the_same_command_continues(life: Life) -> None:
    assert life.until_interrupted.strip().splitlines()[-1] == "interrupted; the same command continues"


def test_the_command_that_finishes_the_run_tells_what_came_of_it(life: Life) -> None:
    status, said, _ = life.at_the_end
    assert status == 0
    assert re.search(rf"runs/died finished in .*: {STEPS} steps, ", said)


def test_repeating_a_finished_run_prints_its_summary_and_does_nothing(life: Life) -> None:
    training = life.training
    before = training.weights(), (training.run / "metrics.jsonl").stat().st_mtime_ns
    status, said, _ = job("train", *training.arguments)
    assert status == 0
    assert "was already finished" in said
    assert (training.weights(), (training.run / "metrics.jsonl").stat().st_mtime_ns) == before


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(10))
def test_ten_deaths_at_random_moments(number: int, folder: Path, calm: Path) -> None:
    draw = random.Random()
    with closing(Training(folder, f"chaos-{number}")) as training:
        training.start()
        training.wait_for_steps(draw.randrange(1, STEPS // 2))
        kind = ("worker", "driver", "saving")[number % 3]
        if kind == "worker":
            kill_worker(training, draw.randrange(2))
        elif kind == "saving":
            kill_while_saving(training)
        else:
            training.kill()
            training.start()
        training.finish()
    training.assert_gone()
    assert_same_end(training.run, calm)
