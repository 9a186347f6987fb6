"""A search that dies, repeated with the same command, ends every trial exactly once.

Deaths of the driver, of a trial's worker and of the whole Ray, and Ctrl-C, belong to `make test`; `make chaos` adds ten
whose kind and moment are drawn, that of the trial's own process among them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState

from tests.cluster.studies import PATIENCE, StudyJob, assert_gone, assert_storage_agrees, write_world

SAMPLES = 3
ENVIRONMENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # what has lost its Ray ends; by default after a minute
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("study_death"))


@pytest.fixture
def job(folder: Path, request: pytest.FixtureRequest) -> Iterator[StudyJob]:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    job = StudyJob(folder, name, (f"tune.num_samples={SAMPLES}", "tune.max_failures=3"), ENVIRONMENT)
    yield job
    for process in job.members():
        process.kill()


def kill_driver(job: StudyJob) -> None:
    assert job.process is not None
    job.process.kill()
    job.process.communicate()
    assert_gone(job)
    job.start()


def kill_worker(job: StudyJob) -> None:
    """Tune starts its trial again, with new workers; nobody has to repeat anything."""
    kill(job, "RayTrainWorker")


def kill_trial(job: StudyJob) -> None:
    """Tune starts the trial again."""
    kill(job, "ray::Trial")


def kill_ray(job: StudyJob) -> None:
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
    job.start()


def interrupt(job: StudyJob) -> None:
    """As a terminal does on Ctrl-C: everything that the command started in its group hears it."""
    assert job.process is not None
    os.killpg(job.process.pid, signal.SIGINT)
    ended = job.end()
    assert ended.status == 130
    assert ended.lines[-1] == "interrupted; the same command continues"
    assert_storage_agrees(job)
    assert_gone(job)
    job.start()


KINDS: dict[str, Callable[[StudyJob], None]] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "trial": kill_trial,
    "ray": kill_ray,
    "interrupt": interrupt,
}


def kill(job: StudyJob, title: str) -> None:
    def killed() -> bool:
        for process in job.members(title):
            with suppress(psutil.NoSuchProcess):  # it ended while we looked
                process.kill()
                return True
        return False

    job.wait_until(killed, f"process {title}")


def strike(job: StudyJob, kind: str, rungs: int) -> dict[Path, int]:
    """Once so many rungs are finished and another one trains. What was finished by then."""
    job.wait_until(lambda: len(job.finished_rungs()) >= rungs and job.trains(), f"training after {rungs} rungs")
    finished = job.finished_rungs()
    KINDS[kind](job)
    return finished


def assert_ended_once(job: StudyJob, finished: dict[Path, int]) -> None:
    """Whatever happened, the study holds so many trials as asked for, each with one end."""
    trials = job.trials()
    continued = {trial.user_attrs["continues"] for trial in trials if "continues" in trial.user_attrs}
    counted = [trial for trial in trials if trial.number not in continued]
    assert len(counted) == SAMPLES
    assert {trial.state for trial in counted} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.user_attrs["folder"] for trial in counted}) == SAMPLES
    for trial in trials:
        if "continues" in trial.user_attrs:
            before = trials[trial.user_attrs["continues"]]
            assert before.state == TrialState.FAIL
            assert before.user_attrs["reason"] == "its driver stopped"
            assert trial.user_attrs["folder"] == before.user_attrs["folder"]
            assert trial.user_attrs["settings"] == before.user_attrs["settings"]
    now = job.finished_rungs()
    assert finished == {path: now[path] for path in finished}, "a finished rung was trained again"
    for trial in counted:
        rungs = {budget: job.summary(trial.user_attrs["folder"], budget) for budget in trial.intermediate_values}
        scores = {budget: summary["eval_after"]["eval_rewards/accuracies"] for budget, summary in rungs.items()}
        assert scores == trial.intermediate_values


@pytest.mark.parametrize("kind", ["driver", "worker", "ray", "interrupt"])
def test_a_study_that_died_ends_every_trial_once(kind: str, job: StudyJob) -> None:
    job.start()
    finished = strike(job, kind, 1)
    ended = job.end()
    assert ended.status == 0, ended
    assert_ended_once(job, finished)
    assert_storage_agrees(job)
    assert_gone(job)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(10))
def test_ten_deaths_at_random_moments(number: int, job: StudyJob) -> None:
    draw = random.Random()
    kind, rungs = draw.choice(list(KINDS)), draw.randrange(1, 4)
    job.start()
    finished = strike(job, kind, rungs)
    ended = job.end()
    assert ended.status == 0, (kind, rungs, ended)
    assert_ended_once(job, finished)
    assert_storage_agrees(job)
    assert_gone(job)
