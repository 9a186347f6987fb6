"""A search that dies, repeated with the same command, ends every trial exactly once.

One study dies in every way, one death after the other; `make chaos` adds ten with a death drawn at a random moment.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.search.studies import PATIENCE, StudyJob, assert_gone, assert_storage_agrees, write_world

SAMPLES = 6
SETTINGS = (f"tune.num_samples={SAMPLES}", "tune.max_failures=6")
ENVIRONMENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # what has lost its Ray ends; by default after a minute
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("study_death"))


@pytest.fixture
def job(folder: Path, request: pytest.FixtureRequest) -> Iterator[StudyJob]:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    job = StudyJob(folder, name, SETTINGS, ENVIRONMENT)
    yield job
    for process in job.members():
        process.kill()


def kill_worker(job: StudyJob) -> None:
    """Tune starts its trial again, with new workers; nobody has to repeat anything."""
    job.kill("RayTrainWorker")


def kill_trial(job: StudyJob) -> None:
    """Tune starts the trial again, in another process; the room of its workers is given back.

    One that trains: Tune gives up a trial that dies while it takes over the process of another.
    """
    job.kill("ray::_Inner.train")  # what Tune makes of our Trial


def kill_driver(job: StudyJob) -> None:
    job.kill_driver()
    job.start()


def kill_ray(job: StudyJob) -> None:
    """The driver ends by itself, and nobody has repeated the command yet."""
    for process in job.members("raylet", "gcs_server"):
        process.kill()
    assert job.process is not None
    try:
        job.process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        job.process.kill()
        job.process.communicate()
    assert job.process.returncode != 0
    assert_gone(job)


def interrupt(job: StudyJob) -> None:
    ended = job.interrupt()
    assert ended.status == 130
    assert ended.lines[-1] == "interrupted; the same command continues"
    assert_storage_agrees(job)
    job.start()


KINDS: dict[str, Callable[[StudyJob], None]] = {
    "worker": kill_worker,
    "trial": kill_trial,
    "driver": kill_driver,
    "interrupt": interrupt,
    "ray": kill_ray,
}


def strike(job: StudyJob, kind: str, rungs: int) -> dict[Path, int]:
    """Once so many rungs are finished and another one trains. What was finished by then."""
    job.wait_until(lambda: len(job.finished_rungs()) >= rungs and job.trains(), f"training after {rungs} rungs")
    finished = job.finished_rungs()
    KINDS[kind](job)
    job.began = (
        time.time()
    )  # the next one waits for a step after this: Tune gives up a trial that dies while it restarts
    return finished


def assert_ended_once(job: StudyJob, finished: dict[Path, int]) -> None:
    """Whatever happened, the study holds so many trials as asked for, each with one end."""
    trials = job.trials()
    assert len(trials) == SAMPLES
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["folder"] for trial in trials}) == SAMPLES
    now = job.finished_rungs()
    assert finished == {path: now[path] for path in finished}, "a finished rung was trained again"
    for trial in trials:
        rungs = {budget: job.summary(trial.user_attrs["folder"], budget) for budget in trial.intermediate_values}
        scores = {budget: summary["eval_after"]["eval_rewards/accuracies"] for budget, summary in rungs.items()}
        assert scores == trial.intermediate_values


def assert_ends_well(job: StudyJob, finished: dict[Path, int]) -> None:
    assert job.process is not None
    # the tests' Ray has room for one trial at a time
    ended = job.end() if job.process.poll() is None else job.run_here("tune.max_concurrent_trials=1")
    assert ended.status == 0, ended
    assert_ended_once(job, finished)
    assert_storage_agrees(job)
    assert_gone(job)


def test_a_study_that_died_in_every_way_ends_every_trial_once(local_ray: None, job: StudyJob) -> None:
    job.start()
    finished: dict[Path, int] = {}
    for rungs, kind in enumerate(KINDS, 1):
        finished |= strike(job, kind, rungs)
    assert_ends_well(job, finished)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(10))
def test_ten_deaths_at_random_moments(number: int, job: StudyJob) -> None:
    draw = random.Random()
    kind, rungs = draw.choice(list(KINDS)), draw.randrange(1, 6)
    job.start()
    finished = strike(job, kind, rungs)
    assert_ends_well(job, finished)
