"""A small search for tests: jobs/tune.py in a process of its own or in this one, and what it leaves on disk.

Everything that a job starts inherits a mark in its environment, so that what outlives the job is found, and only that.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from tests.runs.trainings import ROOT, job

PATIENCE = 240.0  # others may use the cores
MARK = "STUDY_UNDER_TEST"
RECIPE = """
model: {path: model, dtype: float32}
data: {source: {path: pairs.jsonl}, heldout: {fraction: 0.15}, max_prompt_length: 16, max_length: 64}
curriculum: {threshold: {hard_count: 32}}
train:
  global_batch_size: 16
  per_device_train_batch_size: 16
  optimizer: {learning_rate: 1e-3}
  checkpoints: {every_steps: 2}
deepspeed: {zero_stage: 0}
cluster: {use_gpu: false}
tune:
  num_samples: 3
  workers_per_trial: 1
  max_concurrent_trials: 2
  early_stopping: {rungs: 2}
output: {storage_path: out}
"""


def write_world(folder: Path) -> Path:
    """A folder with a recipe that works, its model and its pairs."""
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", 300)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was said on stderr."""
        return self.err.strip().splitlines()


@dataclass
class StudyJob:
    """The command of one study; it can be repeated."""

    folder: Path  # of the recipe, where the command is given
    name: str
    settings: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    began: float = 0.0

    @property
    def study(self) -> Path:
        return self.folder / "out" / "studies" / self.name

    def start(self, *more: str) -> None:
        self.start_job("tune", "recipe.yaml", f"output.name={self.name}", *self.settings, *more)

    def start_job(self, job: str, *arguments: str) -> None:
        self.began = time.time()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments],
            cwd=self.folder, env={**os.environ, **self.environment, MARK: str(self.study)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self) -> Ended:
        assert self.process is not None
        out, err = self.process.communicate(timeout=2 * PATIENCE)
        return Ended(self.process.returncode, out, err)

    def run_here(self, *more: str) -> Ended:
        """In this process, and so on the Ray that it is connected to."""
        return self.run_job_here("tune", "recipe.yaml", f"output.name={self.name}", *self.settings, *more)

    def run_job_here(self, name: str, *arguments: str) -> Ended:
        return Ended(*job(name, *arguments, folder=self.folder))

    def wait_until(self, reached: Callable[[], object], what: str) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{self.study}: no {what}"
            time.sleep(0.02)

    def kill(self, title: str) -> psutil.Process:
        """The first process with this word in its title, as soon as there is one."""
        killed: list[psutil.Process] = []

        def strike() -> bool:
            for process in self.members(title):
                with suppress(psutil.NoSuchProcess):  # it ended while we looked
                    process.kill()
                    killed.append(process)
                    return True
            return False

        self.wait_until(strike, f"process {title}")
        return killed[0]

    def kill_driver(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        assert_gone(self)

    def interrupt(self, *, without_export: bool = False) -> Ended:
        """As a terminal does on Ctrl-C: everything that the command started in its group hears it, unless `alone`."""
        assert self.process is not None
        (os.kill if without_export else os.killpg)(self.process.pid, signal.SIGINT)
        ended = self.end()
        assert_gone(self)
        return ended

    def members(self, *titles: str) -> list[psutil.Process]:
        """Processes that this command started, whatever became of it; those with one of these words in their title."""
        return [one for one in psutil.process_iter() if self._is_member(one) and (not titles or _is(one, titles))]

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(self.study)
        except psutil.Error:  # it ended while we looked, or belongs to somebody else
            return False

    def finished_rungs(self) -> dict[Path, int]:
        """The summary of each rung that was trained to its end, and when it was written."""
        return {path: path.stat().st_mtime_ns for path in self.study.glob("trials/*/rung-*/summary.json")}

    def trains(self) -> bool:
        """Whether a rung that is not finished has taken a step since the command was given."""
        return any(
            metrics.stat().st_mtime > self.began and not metrics.with_name("summary.json").exists()
            for metrics in self.study.glob("trials/*/rung-*/metrics.jsonl")
        )

    def trials(self) -> list[FrozenTrial]:
        """Of Optuna's storage. Not while the command runs."""
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.study / "optuna.journal")))
        trials: list[FrozenTrial] = optuna.load_study(study_name=self.name, storage=storage).get_trials(deepcopy=False)
        return trials

    def table(self) -> list[dict[str, str]]:
        with (self.study / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    def summary(self, folder: str, budget: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.study / folder / f"rung-{budget}" / "summary.json").read_text())
        return content


def _is(process: psutil.Process, titles: tuple[str, ...]) -> bool:
    try:
        title = " ".join(process.cmdline()[:1])
    except psutil.Error:
        return False
    return any(word in title for word in titles)


def assert_storage_agrees(job: StudyJob) -> None:
    """Optuna's storage and trials.csv tell the same of every trial."""
    trials, table = [trial for trial in job.trials() if "folder" in trial.user_attrs], job.table()
    assert [int(row["number"]) for row in table] == [trial.number for trial in trials]
    for trial, row in zip(trials, table, strict=True):
        notes = trial.user_attrs
        cut = trial.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING)
        assert row["state"] == ("INTERRUPTED" if cut else trial.state.name)
        score = trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None
        assert row["eval_rewards/accuracies"] == ("" if score is None else str(score))
        rungs = {int(name.split()[1]): value for name, value in row.items() if name.startswith("rung ") and value}
        assert rungs == {budget: str(value) for budget, value in trial.intermediate_values.items()}
        for setting, value in trial.params.items():
            assert row[setting] == str(value)
        assert row["reason"] == notes.get("reason", "")
        assert row["continued"] == str(notes.get("continued", 0))


def assert_gone(job: StudyJob) -> None:
    """Nothing that the command started is left, a few seconds after it."""
    deadline = time.monotonic() + 60
    while (left := job.members()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
