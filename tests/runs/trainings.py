"""A small training for tests: jobs/train.py in a process of its own or in this one, and the same without Ray."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # others may use the cores
MARK = "RUN_UNDER_TEST"  # inherited by everything that a command starts, so that what outlives it is found
SAME = ("step", "window_hash", "loss", "learning_rate", "grad_norm")


def write_world(folder: Path, settings: str, pairs: int) -> Path:
    """A folder with a model, pairs and a recipe of which `settings` are all sections but model, data and output."""
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", pairs)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
output: {{storage_path: {folder}/out}}
{settings}
"""
    )
    return folder


class Training:
    """The command of one run; it can be repeated, in a process of its own or in this one."""

    def __init__(self, folder: Path, name: str, *overrides: str, address: str | None = None):
        self.run = folder / "out" / "runs" / name
        self.arguments = [str(folder / "recipe.yaml"), f"output.name={name}", *overrides]
        self.environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        if address:
            self.environment["RAY_ADDRESS"] = address
        self.environment[MARK] = str(self.run)
        self.log = folder / f"{name}.log"

    def start(self) -> None:
        command = [sys.executable, "jobs/train.py", *self.arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def finish(self, status: int = 0) -> str:
        assert self.process.wait(PATIENCE) == status, self.said()
        return self.said()

    def said(self) -> str:
        return self.log.read_text()

    def wait_until(self, reached: Callable[[], object], pause: float = 0.02) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"{self.run} did not get there: {self.said()}"
            time.sleep(pause)

    def wait_for_steps(self, count: int) -> None:
        self.wait_until(lambda: self.lines() >= count and len(self.steps()) >= count)

    def steps(self) -> list[dict[str, Any]]:
        return steps_of(self.run)

    def lines(self) -> int:
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def saved(self) -> dict[int, int]:
        """Step of each checkpoint, and the number of workers that made it."""
        marks = (self.run / "checkpoints").glob("step-*/COMMITTED")
        manifests = [json.loads((mark.parent / "manifest.json").read_text()) for mark in marks]
        return {manifest["step"]: manifest["world"] for manifest in sorted(manifests, key=lambda one: one["step"])}

    def workers(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return sorted((one for one in family if "RayTrainWorker" in title(one)), key=lambda worker: worker.pid)

    def kill(self) -> None:
        """The driver."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """For a test that failed in the middle."""
        if self.process.poll() is None:
            self.kill()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def assert_gone(self) -> None:
        """Nothing that the command started is left, some seconds after it."""
        deadline = time.monotonic() + 60
        while (left := [title(one) for one in psutil.process_iter() if self._started(one)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        assert not left

    def _started(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(self.run)
        except psutil.Error:  # it ended while we looked, or belongs to somebody else
            return False

    def weights(self) -> bytes:
        return (self.run / "model" / "model.safetensors").read_bytes()


def job(name: str, *arguments: str, folder: Path = ROOT) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of jobs/NAME.py, run in this process and so on the Ray that it is connected to."""
    script = str(ROOT / "jobs" / f"{name}.py")
    out, err, before, heard = io.StringIO(), io.StringIO(), sys.argv, signal.getsignal(signal.SIGINT)
    status: object = 0
    try:
        sys.argv = [script, *arguments]
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, heard)
    assert isinstance(status, int), status
    return status, out.getvalue(), err.getvalue()


def steps_of(run: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's metrics that are steps."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, lines) if line.get("kind") != "eval"]


def undisturbed(folder: Path, world: int) -> Path:
    """The folder of the same run by so many processes without Ray, from what a run has prepared."""
    run = folder / f"undisturbed-by-{world}"
    (prepared,) = (folder / "out" / "prepared").glob("[!.]*")  # without its lock
    (reference,) = (folder / "out" / "reference").glob("[!.]*")
    table = PreparedTable.open(str(prepared))
    training = job_in(str(run), load_recipe(str(folder / "recipe.yaml")), table, "undisturbed")
    gang = Gang(world)
    gang(_train, training.with_reference(str(reference)))
    gang.close()
    return run


def _train(world: World, training: TrainingJob) -> None:
    run_training(training, world)


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """Bit for bit."""
    for key in SAME:
        assert [line[key] for line in steps_of(run)] == [line[key] for line in steps_of(undisturbed)], key
    model, expected = (folder / "model" / "model.safetensors" for folder in (run, undisturbed))
    assert model.read_bytes() == expected.read_bytes()


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended while we looked
        return ""
