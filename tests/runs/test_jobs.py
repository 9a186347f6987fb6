"""What a person sees of a job that cannot work: one line, and an exit status to trust."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mixdpo_ray.cluster import preflight
from mixdpo_ray.cluster.nodes import Node, survey
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from tests.runs.trainings import job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that works, once there is a model. Its paths are relative: workers have other working directories."""
    write_pairs(tmp_path / "pairs.jsonl", 80)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
model: {path: ./model, dtype: float32}
data: {source: {path: pairs.jsonl}, max_prompt_length: 16, max_length: 64}
train: {global_batch_size: 8, per_device_train_batch_size: 4}
cluster: {use_gpu: false}
output: {storage_path: out}
"""
    )
    return path


def run(name: str, folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and what was said on stderr by a job that was started in a folder, each thing once."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, [line for line in done.stderr.strip().splitlines() if not line.endswith(" s so far")]


@pytest.mark.parametrize("name", ["prepare", "train", "tune", "compare", "score"])
def test_a_missing_model_and_misspelt_columns_are_lines_of_a_refusal_before_ray(recipe: Path, name: str) -> None:
    arms = "compare.arms={a: {}, b: {objective.beta: 0.2}}"
    status, out, said = job(name, recipe.name, "data.source.columns={chosen: chosn}", arms, folder=recipe.parent)
    assert (status, out) == (2, "")
    model, columns = said.splitlines()
    absolute = recipe.parent / "model"
    assert model == f"model.path './model' is no folder; correct the path ({absolute}), or give a Hugging Face name"
    assert columns.startswith("data.source.columns names chosn (for chosen), which the source does not have")


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_warm_up_longer_than_its_stage_is_refused_before_training(recipe: Path) -> None:
    write_tiny_model(recipe.parent / "model")
    status, _, said = job("train", recipe.name, "train.schedule.warmup_steps=500", folder=recipe.parent)
    assert status == 2
    assert "train.schedule.warmup_steps 500 is longer than the easy stage" in said.splitlines()[-1]
    assert not (recipe.parent / "out" / "reference").exists()


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("name", ["prepare", "score", "train"])
def test_a_job_looks_the_cluster_over_once(recipe: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_model(recipe.parent / "model")
    looks: list[str] = []

    def counted(path: str, *more: tuple[str, ...]) -> list[Node]:
        looks.append(path)
        return survey(path, *more)

    monkeypatch.setattr(preflight, "survey", counted)
    status, _, said = job(name, recipe.name, "objective.name=simpo", "train.max_steps=2", folder=recipe.parent)
    assert (status, looks) == (0, ["out"]), said


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_job_that_has_no_time_left_has_an_exit_status_of_its_own(recipe: Path) -> None:
    write_tiny_model(recipe.parent / "model")
    status, _, said = job("train", recipe.name, "objective.name=simpo", "train.stop_after=0.01", folder=recipe.parent)
    assert (status, said.splitlines()[-1]) == (
        3, "stopped by train.stop_after (0.0 s) before its workers could start; the same command continues"
    )  # fmt: skip
