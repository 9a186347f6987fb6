"""Killed with -9 and continued from a checkpoint: one run in each tracker, with each step once.

Read back by the trackers' own libraries. Trackio is no part of the dev extra: pip install trackio beside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tracking.killed_training import EVERY, PASSWORD, STEPS
from tests.tracking.wandb_files import rows, run_of

ROOT = Path(__file__).parents[2]
TRAINED, EVALUATED = list(range(1, STEPS + 1)), list(range(0, STEPS + 1, EVERY))


def train(folder: Path, first: int, killed_in: int, *names: str, seconds_before_the_kill: str = "0") -> str:
    environment = {
        **os.environ, "TRACKIO_DIR": str(folder / "trackio"), "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "SECONDS_BEFORE_THE_KILL": seconds_before_the_kill, "WANDB_DATA_DIR": str(folder), "PYTHONWARNINGS": "ignore",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-m", "tests.tracking.killed_training", str(folder), str(first), str(killed_in), *names],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == (-signal.SIGKILL if killed_in >= 0 else 0), ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed after 7 steps with a checkpoint after 5, and continued there."""
    for library in ("wandb", "mlflow", "tensorboard"):
        pytest.importorskip(library)
    made = tmp_path_factory.mktemp("killed")
    (made / "run").mkdir()
    names = ("wandb", "mlflow", "tensorboard")
    assert train(made, 0, 6, *names) == train(made, 5, -1, *names) == ""  # no warning
    return made


def test_wandb_has_one_run_with_each_step_once(folder: Path) -> None:
    (file,) = folder.glob("run/wandb/offline-run-*/*.wandb")
    history, run = rows(file), run_of(file)
    assert [row["_step"] for row in history] == [0, *TRAINED]
    assert [row["_step"] for row in history if "eval_loss" in row] == EVALUATED
    assert [row["loss"] for row in history if "loss" in row] == [1 / step for step in TRAINED]
    assert "curves" in history[-1]
    assert (run.run_id[:16], run.run_group, run.display_name) == ("0123456789abcdef", "study", "dpo, seed 1")
    assert set(run.tags) == {"arm=dpo", "seed=1", "objective.beta=0.1"}
    assert {one.key: one.value_json for one in run.config.update}["objective.beta"] == "0.1"


def test_mlflow_has_one_run_with_each_step_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(f"file://{folder}/mlruns")
    experiment = client.get_experiment_by_name("mixdpo_ray")
    (run,) = client.search_runs([experiment.experiment_id])
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert [point.step for point in history["loss"]] == TRAINED
    assert [point.value for point in history["loss"]] == [1 / step for step in TRAINED]
    assert [point.step for point in history["eval_loss"]] == EVALUATED
    assert (run.info.run_name, run.info.status) == ("dpo, seed 1", "FINISHED")
    assert run.data.tags["mixdpo_ray.group"] == "study"
    assert run.data.tags["mixdpo_ray.arm"] == "dpo"
    assert run.data.params["objective.beta"] == "0.1"
    assert run.data.params["compare.arms.dpo_ at 0.1.objective.beta"] == "0.1"


def test_tensorboard_shows_each_step_once(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{folder}/run/tensorboard")
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == TRAINED
    assert [event.step for event in events.Scalars("eval_loss")] == EVALUATED
    assert events.Tags()["images"] == ["curves"]


def test_nothing_secret_is_written_anywhere(folder: Path) -> None:
    """Neither what the environment holds nor the password in the address of a study's storage."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path.name for path in files if PASSWORD.encode() in path.read_bytes()] == []


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is installed by hand")
def test_trackio_has_one_run_with_each_step_once(tmp_path: Path) -> None:
    """It writes twice a second, and a kill loses what it has not."""
    (tmp_path / "run").mkdir()
    train(tmp_path, 0, 6, "trackio", seconds_before_the_kill="1.5")
    train(tmp_path, 5, -1, "trackio")
    program = """
from trackio.sqlite_storage import SQLiteStorage as storage
(run,) = storage.get_run_records("mixdpo_ray")
for row in storage.get_logs("mixdpo_ray", run["name"], run_id=run["id"]):
    print(row["step"], *sorted(name for name in row if name in ("loss", "eval_loss", "curves")))
"""
    read = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [line.split() for line in read.stdout.splitlines()]
    assert [int(row[0]) for row in told if "loss" in row] == TRAINED
    assert [int(row[0]) for row in told if "eval_loss" in row] == EVALUATED
    assert "curves" in told[-1]
