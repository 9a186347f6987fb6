"""Damage, conflict and a full disk: what is refused, what is used instead, and what is left."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import CheckpointError, StorageError
from mixdpo_ray.training.checkpoints import MANIFEST, MARK, CheckpointManifest, best_step, committed_steps
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import steps, train, unlike, weights
from tests.training.tiny import make_job

SHARD = "zero_pp_rank_1_mp_rank_00_optim_states.pt"


class Warnings(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.saved: list[str] = []

    def on_warning(self, text: str, *, once: bool = False) -> None:
        self.texts.append(text)

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        self.saved.append(path)


def train_and_listen(world: World, job: TrainingJob) -> Warnings:
    listener = Warnings()
    run_training(job, world, listener=listener)
    return listener


def every_step(tiny: Path, run: Path, **changes: Any) -> TrainingJob:
    return make_job(tiny, run, checkpoints=CheckpointSettings(every_steps=1, keep_last=9), **changes)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def truth(tiny: Path, two: Gang, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("truth")
    two(train, every_step(tiny, run))
    return run


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, f"{SHARD} has [0-9]+ bytes, not [0-9]+"),
        (Path.unlink, f"{SHARD} is missing"),
        (flip, f"{SHARD} has other content than was written"),
    ],
    ids=["truncated", "missing", "flipped"],
)
def test_a_damaged_checkpoint_is_refused_loudly_and_the_one_before_is_used(
    tiny: Path, two: Gang, tmp_path: Path, truth: Path, damage: Callable[[Path], None], reason: str
) -> None:
    two(train, every_step(tiny, tmp_path, max_steps=3))
    damage(tmp_path / "checkpoints" / "step-3" / SHARD)
    heard = two(train_and_listen, every_step(tiny, tmp_path))[0]
    assert len(heard.texts) == 1
    assert re.search(rf"checkpoint step-3 is damaged \({reason}\) and was set aside", heard.texts[0])
    assert [line["step"] for line in steps(tmp_path)] == [0, 1, 2, 3, 4]
    assert unlike(weights(tmp_path), weights(truth)) == 0
    assert committed_steps(str(tmp_path / "checkpoints")) == [1, 2, 3, 4, 5]


def test_a_damaged_manifest_is_damage_too(tiny: Path, two: Gang, tmp_path: Path, truth: Path) -> None:
    two(train, every_step(tiny, tmp_path, max_steps=3))
    truncate(tmp_path / "checkpoints" / "step-3" / "manifest.json")
    heard = two(train_and_listen, every_step(tiny, tmp_path))[0]
    assert "manifest.json" in heard.texts[0]
    assert unlike(weights(tmp_path), weights(truth)) == 0


def test_without_the_mark_a_checkpoint_was_never_there(tiny: Path, two: Gang, tmp_path: Path, truth: Path) -> None:
    """A kill between the shards and the mark: no damage, and nothing to warn of."""
    two(train, every_step(tiny, tmp_path, max_steps=3))
    (tmp_path / "checkpoints" / "step-3" / "COMMITTED").unlink()
    (tmp_path / "checkpoints" / ".writing-step-4-rank-0").mkdir()
    heard = two(train_and_listen, every_step(tiny, tmp_path))[0]
    assert heard.texts == []
    assert len(heard.saved) == 3
    assert unlike(weights(tmp_path), weights(truth)) == 0
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_nothing_sound_is_an_error_and_not_a_fresh_start(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, max_steps=1)
    two(train, job)
    flip(tmp_path / "checkpoints" / "step-1" / SHARD)
    with pytest.raises(CheckpointError, match="none of 1 checkpoints is sound"):
        two(train, job)


def test_a_checkpoint_of_another_training_is_refused(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, max_steps=1)
    two(train, job)
    with pytest.raises(CheckpointError, match="step-1 belongs to training tiny, this one is other"):
        two(train, replace(job, fingerprint="other"))


def test_a_folder_that_everyone_can_write_to_is_refused(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, max_steps=1)
    two(train, job)
    (tmp_path / "checkpoints" / "step-1").chmod(0o777)
    with pytest.raises(CheckpointError, match=r"can be written by every user.*chmod o-w"):
        two(train, job)


def train_on_a_full_disk(world: World, job: TrainingJob) -> str:
    """No file may grow beyond 20 kB, which is where the operating system says no."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        run_training(job, world)
    except StorageError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return ""


def test_a_full_disk_is_one_line_and_leaves_the_last_good_state(tiny: Path, one: Gang, tmp_path: Path) -> None:
    two_steps = every_step(tiny, tmp_path, max_steps=2)
    one(train, two_steps)
    text = one(train_on_a_full_disk, every_step(tiny, tmp_path))[0]
    assert "\n" not in text
    assert "disk" in text or "File too large" in text
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-1", "step-2"]
    one(train, every_step(tiny, tmp_path))
    assert committed_steps(str(tmp_path / "checkpoints")) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("metric", "best"), [("eval_nll/chosen", 1), ("eval_code_nll/chosen", 1), ("eval_rewards/accuracies", 2)]
)
def test_what_falls_is_best_where_it_is_lowest(tmp_path: Path, metric: str, best: int) -> None:
    for step, value in ((1, 0.25), (2, 0.5)):
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        told = CheckpointManifest(step=step, fingerprint="", world=1, zero_stage=0, metrics={metric: value}, files={})
        (folder / MANIFEST).write_bytes(told.to_json())
        (folder / MARK).touch()
    assert best_step(str(tmp_path), metric) == best


def test_only_the_newest_are_kept_and_the_best(tiny: Path, two: Gang, tmp_path: Path) -> None:
    settings = CheckpointSettings(every_steps=1, keep_last=2, keep_best="eval_loss")
    two(train, make_job(tiny, tmp_path, checkpoints=settings))
    folder = str(tmp_path / "checkpoints")
    losses = {
        line["step"]: line["eval_loss"]
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if line.get("kind") == "eval" and line["step"] > 0
    }
    best = min(losses, key=lambda step: (losses[step], -step))
    assert committed_steps(folder) == sorted({4, 5, best})
    assert best_step(folder, "eval_loss") == best
