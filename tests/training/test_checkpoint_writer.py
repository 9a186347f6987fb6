"""Checkpoints that do not stop training: what goes on meanwhile, what waits, what counts, and what an error becomes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.training.checkpoints import committed_steps
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from tests.slow_store import NAME, slow_store
from tests.training.gang import Gang
from tests.training.test_loop import steps, train, train_until, unlike, weights
from tests.training.tiny import make_job

LATENCY = 0.03  # seconds; a step of the tiny model takes less than its checkpoint's requests


class Diary(Silent):
    """What happened, in its order."""

    def __init__(self, wanted: int | None = None) -> None:
        self.entries: list[str] = []
        self.seconds: dict[int, float] = {}
        self.wanted, self.done = wanted, 0

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.entries.append(f"step {metrics['step']}")

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        assert storage.exists(storage.join(path, "COMMITTED")), "it is told after it counts"
        self.entries.append(f"saved {metrics['step']}")
        self.seconds[metrics["step"]] = metrics["perf/checkpoint_seconds"]

    def on_phase(self, text: str) -> None:
        if "checkpoint" in text:
            self.entries.append(text)

    def checkpoint_wanted(self) -> str | None:
        self.done += 1
        return "the machine leaves" if self.done == self.wanted else None


def train_in_bucket(world: World, job: TrainingJob, environment: dict[str, str], wanted: int | None = None) -> Diary:
    os.environ.update(environment)
    diary = Diary(wanted)
    run_training(job, world, listener=diary)
    return diary


def train_in_bucket_until(world: World, job: TrainingJob, environment: dict[str, str], stop: int) -> list[int]:
    """What counts at the moment of a death, and what of scratch files is left by a process that had no time."""
    os.environ.update(environment)
    train_until(world, job, stop, at_once=False)
    if world.leads:
        tempfile.mkdtemp(prefix=f"mixdpo-checkpoint-{_key(job)}-")
    return committed_steps(storage.join(job.run, "checkpoints"))


def _key(job: TrainingJob) -> str:
    from mixdpo_ray.training.checkpoint_files import _scratch_prefix

    return _scratch_prefix(storage.join(job.run, "checkpoints")).split("-")[2]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with slow_store(LATENCY) as environment:
        yield environment


@pytest.fixture(scope="module")
def truth(tiny: Path, two: Gang, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training on a disk."""
    run = tmp_path_factory.mktemp("truth")
    two(train, every_second(tiny, str(run)))
    return run


def every_second(tiny: Path, run: str, **changes: Any) -> TrainingJob:
    settings = CheckpointSettings(every_steps=2, keep_last=9)
    return replace(make_job(tiny, Path("unused"), checkpoints=settings, **changes), run=run)


def weights_in(run: str, folder: Path) -> Path:
    storage.copy(storage.join(run, "model"), str(folder / "model"))
    return folder


def lines_in(run: str) -> list[dict[str, Any]]:
    text = storage.read_bytes(storage.join(run, "metrics.jsonl")).decode()
    return [line for line in map(json.loads, text.splitlines()) if "kind" not in line]


def test_steps_go_on_while_a_checkpoint_is_stored_and_the_next_one_waits_for_it(
    tiny: Path, two: Gang, tmp_path: Path, truth: Path, environment: dict[str, str]
) -> None:
    run = f"s3://{NAME}/goes-on"
    diaries = two(train_in_bucket, every_second(tiny, run), environment, 1)
    entries = diaries[0].entries
    early = ["step 0", "saving a checkpoint: the machine leaves", "saved 1"]
    assert entries[:3] == early, "whoever wants one may take the machine at any moment"
    assert entries.index("step 2") < entries.index("saved 2"), "the step after a checkpoint does not wait for it"
    waits = "waiting until the checkpoint of step 2 is stored"
    assert entries.index("step 3") < entries.index(waits) < entries.index("saved 2") < entries.index("saved 4")
    assert entries[-1] == "saved 5", "the last one is waited for"
    assert [entry for entry in diaries[1].entries if entry.startswith("saved")] == [f"saved {n}" for n in (1, 2, 4, 5)]
    assert unlike(weights(weights_in(run, tmp_path)), weights(truth)) == 0
    waited = [line.get("perf/checkpoint_seconds", 0.0) for line in lines_in(run)]
    assert waited[0] == 0, "no checkpoint came before it"
    assert 0 < waited[2] < min(waited[1], waited[4]), "a step waits only for what is written, unless one must count"
    assert waited[1] / 2 < diaries[0].seconds[1] <= waited[1], "what is told of a checkpoint is what was waited for it"


def test_a_death_before_the_commit_leaves_nothing_that_counts_and_the_run_ends_with_the_same_bits(
    tiny: Path, two: Gang, tmp_path: Path, truth: Path, environment: dict[str, str]
) -> None:
    run = f"s3://{NAME}/dies"
    job = every_second(tiny, run)
    assert two(train_in_bucket_until, job, environment, 3) == [[], []]
    two(train_in_bucket, job, environment)
    assert unlike(weights(weights_in(run, tmp_path)), weights(truth)) == 0
    assert committed_steps(storage.join(run, "checkpoints")) == [2, 4, 5]
    assert not list(Path(tempfile.gettempdir()).glob(f"mixdpo-checkpoint-{_key(job)}-*")), "scratch is swept"


class InTheWay(Silent):
    """Somebody puts a file where the folder of a checkpoint belongs."""

    def __init__(self, run: str):
        self.run = run

    def on_step(self, metrics: dict[str, Any]) -> None:
        if metrics["step"] == 1:
            Path(self.run, "checkpoints").mkdir(exist_ok=True)
            Path(self.run, "checkpoints", "step-2").touch()


def train_with_something_in_the_way(world: World, job: TrainingJob) -> str:
    with pytest.raises(StorageError) as refused:
        run_training(job, world, listener=InTheWay(job.run))
    return str(refused.value)


def test_an_error_of_what_goes_on_meanwhile_is_one_line_on_every_rank(
    tiny: Path, two: Gang, tmp_path: Path, truth: Path
) -> None:
    job = every_second(tiny, str(tmp_path))
    texts = two(train_with_something_in_the_way, job)
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    assert f"{tmp_path}/checkpoints/step-2: " in texts[0]
    assert len(steps(tmp_path)) < 5, "the run ends at the next window"
    assert not list((tmp_path / "checkpoints").glob(".writing*"))
    two(train, job)
    assert unlike(weights(tmp_path), weights(truth)) == 0
