"""A run that dies, repeated with the same command, ends with the weights of the run that did not, bit for bit.

One death of each kind belongs to `make test`; `make chaos` adds ten at random moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model

ROOT = Path(__file__).parents[2]
STEPS, EASY_STEPS, SAVE_EVERY = 24, 22, 3
PATIENCE = 240.0
pytestmark = pytest.mark.cluster


class Trial:
    """jobs/train.py in a process of its own, and its run's folder."""

    def __init__(self, folder: Path, name: str):
        self.run = folder / "out" / "runs" / name
        self.command = [sys.executable, "jobs/train.py", str(folder / "recipe.yaml"), f"output.name={name}"]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def finish(self) -> str:
        assert self.process is not None
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        return said

    def wait_until(self, reached: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, f"{self.run} did not get there"
            time.sleep(0.005)

    def steps(self) -> list[dict[str, object]]:
        """Whole lines of the metrics that are steps."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [line for line in map(json.loads, lines) if line.get("kind") != "eval"]

    def kill_worker(self, rank: int) -> None:
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        workers = sorted(member.pid for member in family if "RayTrainWorker" in " ".join(member.cmdline()))
        os.kill(workers[rank], signal.SIGKILL)

    def kill_driver(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def weights(self) -> bytes:
        return (self.run / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("death")
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", 420)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
curriculum: {{threshold: {{hard_count: 32}}}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 4
  max_steps: {STEPS}
  optimizer: {{learning_rate: 1e-3}}
  checkpoints: {{every_steps: {SAVE_EVERY}}}
cluster: {{num_workers: 2, use_gpu: false}}
output: {{storage_path: {folder}/out}}
"""
    )
    return folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> Trial:
    """The run that nobody disturbs."""
    trial = Trial(folder, "calm")
    trial.start()
    said = trial.finish()
    assert "calm finished in" in said
    return trial


def same_end(trial: Trial, calm: Trial) -> None:
    assert trial.weights() == calm.weights()
    for key in ("step", "window_hash", "loss", "learning_rate", "grad_norm"):
        assert [line[key] for line in trial.steps()] == [line[key] for line in calm.steps()]


def kill_worker(trial: Trial, draw: random.Random) -> None:
    """Ray Train starts the group again; nobody has to repeat anything."""
    step = draw.randrange(1, STEPS - 2)
    trial.start()
    trial.wait_until(lambda: len(trial.steps()) >= step)
    trial.kill_worker(draw.randrange(2))
    trial.finish()


def kill_driver(trial: Trial, draw: random.Random) -> None:
    step = draw.randrange(1, STEPS - 2)
    trial.start()
    trial.wait_until(lambda: len(trial.steps()) >= step)
    trial.kill_driver()
    trial.start()
    trial.finish()


def kill_while_saving(trial: Trial, draw: random.Random) -> None:
    """While shards are on disk and the commit mark is not."""
    saves = draw.randrange(1, STEPS // SAVE_EVERY)
    trial.start()
    trial.wait_until(lambda: len(trial.steps()) >= saves * SAVE_EVERY)
    half = trial.run / "checkpoints" / f"step-{saves * SAVE_EVERY}"
    trial.wait_until(half.exists)
    trial.kill_worker(draw.randrange(2))
    trial.finish()


KINDS = {"worker": kill_worker, "driver": kill_driver, "saving": kill_while_saving}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_died_ends_with_the_weights_of_the_run_that_did_not(kind: str, folder: Path, calm: Trial) -> None:
    trial = Trial(folder, kind)
    KINDS[kind](trial, random.Random(7))
    same_end(trial, calm)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(10))
def test_ten_deaths_at_random_moments(number: int, folder: Path, calm: Trial) -> None:
    draw = random.Random()
    kind = list(KINDS)[number % len(KINDS)]
    trial = Trial(folder, f"chaos-{number}")
    KINDS[kind](trial, draw)
    same_end(trial, calm)


def test_repeating_a_finished_run_prints_its_summary_and_does_nothing(calm: Trial) -> None:
    before = calm.weights(), (calm.run / "metrics.jsonl").stat().st_mtime_ns
    calm.start()
    assert "was already finished" in calm.finish()
    assert (calm.weights(), (calm.run / "metrics.jsonl").stat().st_mtime_ns) == before


@pytest.fixture(autouse=True)
def nothing_left_behind(folder: Path) -> Iterator[None]:
    """Processes of this test's jobs are gone soon after it."""
    yield
    deadline = time.monotonic() + 30
    while _of(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not _of(folder)


def _of(folder: Path) -> list[int]:
    return [process.pid for process in psutil.process_iter() if str(folder) in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it ended while we looked
        return []
