"""Standing groups of real workers, which one test after the other uses: two that train, and one that dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray

from mixdpo_ray.cluster.events import Warned
from mixdpo_ray.cluster.gauges import CHECKPOINTS, GAUGES, JUDGE_QUEUE, OF_EVALUATIONS, OF_STEPS
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_workers import fit
from mixdpo_ray.cluster.worker_group import WorkerGroup
from mixdpo_ray.errors import NonFiniteError, PreparedTableError, ResourceError, WorkersError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.settings import CheckpointSettings
from tests.cluster.scraping import scraped_of
from tests.training.test_every_objective import told
from tests.training.test_isolation import job_of, make_biased, weights
from tests.training.tiny import make_job, make_world

TWO = ClusterSettings(num_workers=2, use_gpu=False, max_failures=0, hang_seconds=3)
ONE = TWO.model_copy(update={"num_workers": 1})
PATIENCE = 120.0
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> WorkerGroup:
    """The last test that uses it closes it."""
    folder = str(tmp_path_factory.mktemp("two"))
    return WorkerGroup(TWO, folder, claim_run(folder))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Iterator[WorkerGroup]:
    """Of one worker: that the others leave with one that dies is shown where a run dies (test_death.py)."""
    folder = str(tmp_path_factory.mktemp("group"))
    group = WorkerGroup(ONE, folder, claim_run(folder))
    yield group
    group.close()


def pid(model: str) -> dict[str, float]:
    """A judge that looks at nothing but where it is."""
    assert (Path(model) / "config.json").exists()
    return {"pid": os.getpid()}


def train(group: WorkerGroup, job: TrainingJob) -> int:
    """The process of rank 0."""
    summary = group.train(QueuedJob(job, "a label", pid))
    return int(summary["judged"]["pid"])


def test_a_training_in_a_standing_group_is_the_one_alone(two: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    """After others of another objective, ZeRO stage and dtype, of which one was not finite."""
    world = make_biased(tiny, tmp_path / "world")
    first = train(two, job_of(world, tmp_path / "sharded", "sharded"))
    with pytest.raises(NonFiniteError, match=r"^step \d: "):
        train(two, job_of(world, tmp_path / "broken", "broken"))
    assert train(two, job_of(world, tmp_path / "half", "half")) == first

    alone = job_of(world, tmp_path / "alone", "half")
    fit(TWO, alone, claim_run(alone.run))
    assert told(tmp_path / "half") == told(tmp_path / "alone")
    assert weights(tmp_path / "half") == weights(tmp_path / "alone")
    assert not (tmp_path / "alone" / "ray").exists()


def test_the_numbers_of_a_training_can_be_scraped(two: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    """All that the dashboard shows, but for a judge's queue: what the last line with each of them says."""
    job = make_job(tiny, tmp_path / "run", checkpoints=CheckpointSettings(every_steps=2))
    two.train(QueuedJob(job, "scraped"))
    tags = {"run": Path(two.folder).name, "study": "", "trial": "scraped"}
    found = scraped_of(tags, *(name for name in GAUGES if name != JUDGE_QUEUE[0]))
    last: dict[str, float] = {}
    for line in map(json.loads, Path(job.run, "metrics.jsonl").read_text().splitlines()):
        last.update({name: value for name, value in line.items() if name != "step" or "kind" not in line})
    expected = {gauge: last[metric] for gauge, (metric, _) in {**OF_STEPS, **OF_EVALUATIONS}.items()}
    assert 0 < found.pop(CHECKPOINTS[0]) < PATIENCE
    assert found == pytest.approx(expected)


def slow_job(tiny: Path, run: Path, save_every: int) -> TrainingJob:
    """160 steps. A worker that stands still while it saves, or at its first step, is given ten times as long."""
    checkpoints = CheckpointSettings(every_steps=save_every, keep_last=1000)
    return make_job(tiny, run, num_train_epochs=32, checkpoints=checkpoints)


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line["step"] for line in map(json.loads, lines) if line.get("kind") != "eval"]


def disturbed(group: WorkerGroup, job: TrainingJob, kind: signal.Signals) -> WorkersError:
    """What a training ends with when rank 0 gets this signal in the middle."""
    before = train(group, replace(job, run=f"{job.run}-before", train=job.train.model_copy(update={"max_steps": 1})))
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(train, group, job)
        deadline = time.monotonic() + PATIENCE
        while len(steps(Path(job.run))) < 100:
            assert time.monotonic() < deadline
            assert not ended.done(), ended.result()
            time.sleep(0.02)
        os.kill(before, kind)
        with pytest.raises(WorkersError) as caught:
            ended.result()
    if kind == signal.SIGSTOP:
        with suppress(psutil.NoSuchProcess):  # Ray may have ended it already
            psutil.Process(before).kill()
    return caught.value


def test_a_worker_that_hangs_is_named(two: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    error = disturbed(two, slow_job(tiny, tmp_path / "hung", save_every=1000), signal.SIGSTOP)
    assert "rank 0 of 2 has not answered since step" in str(error)
    train(two, make_job(tiny, tmp_path / "after"))


def test_the_only_worker_is_named_and_ended_when_it_is_frozen(group: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    """Nobody speaks then: the clock that judges runs elsewhere."""
    error = disturbed(group, slow_job(tiny, tmp_path / "hung", save_every=1000), signal.SIGSTOP)
    assert "the only worker has not answered since step" in str(error)


def test_closed_it_leaves_neither_process_nor_file(two: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    process = psutil.Process(train(two, make_job(tiny, tmp_path)))
    two.close()
    gone, _ = psutil.wait_procs([process], timeout=PATIENCE)
    assert gone == [process]
    assert list(Path(two.folder).iterdir()) == []


def test_an_error_of_a_job_ends_the_workers_but_not_the_group(group: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    """Perhaps it is of one rank of several, for which the others would wait."""
    before = train(group, make_job(tiny, tmp_path / "before"))
    absent = replace(make_job(tiny, tmp_path / "absent"), prepared=str(tmp_path / "nowhere"))
    with pytest.raises(PreparedTableError, match="nowhere"):
        train(group, absent)
    assert train(group, make_job(tiny, tmp_path / "after")) != before


def lacking(model: str) -> dict[str, float]:
    raise ModuleNotFoundError(f"No module named 'judge', and {model} is not judged")


def test_a_library_that_a_worker_lacks_is_told_and_not_tried_again(tiny: Path, tmp_path: Path, local_ray: None) -> None:
    group = WorkerGroup(ONE.model_copy(update={"max_failures": 3}), str(tmp_path), claim_run(str(tmp_path)))
    with pytest.raises(ResourceError, match=r"lacks a library: No module named 'judge'.*; install it on all nodes"):
        group.train(QueuedJob(make_job(tiny, tmp_path / "run"), "a label", lacking))
    group.close()
    assert not [event for event in ray.get(group.run_actor.take.remote()) if isinstance(event, Warned)]


def test_a_killed_worker_costs_its_own_training_one_try(group: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    job = slow_job(tiny, tmp_path / "killed", save_every=30)
    assert "its process died without a word" in str(disturbed(group, job, signal.SIGKILL))
    done = len(steps(tmp_path / "killed"))
    summary = group.train(QueuedJob(job))
    assert steps(tmp_path / "killed") == list(range(summary["steps"]))
    assert 30 <= done < summary["steps"]


def test_workers_that_died_idle_cost_nobody_a_try(group: WorkerGroup, tiny: Path, tmp_path: Path) -> None:
    before = train(group, make_job(tiny, tmp_path / "before"))
    os.kill(before, signal.SIGKILL)
    assert group.running is not None
    assert isinstance(group.running.exception(PATIENCE), WorkersError)
    assert train(group, make_job(tiny, tmp_path / "after")) != before
