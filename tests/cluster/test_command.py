"""What a job refuses before it does anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixdpo_ray.cluster.recipe_arguments import recipe_parser, refuse_lost_output
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.recipe import Recipe


def recipe(storage_path: str) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"path": "model"},
            "data": {"source": {"path": "pairs.jsonl"}},
            "output": {"storage_path": storage_path, "name": "run"},
        }
    )


def submitted(monkeypatch: pytest.MonkeyPatch, working_dir: str | None) -> None:
    environment = {"working_dir": working_dir} if working_dir else {}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": environment}))


def test_a_submitted_job_does_not_write_into_the_copy_that_ray_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(monkeypatch, "gcs://_ray_pkg_0123.zip")
    with pytest.raises(RecipeError, match=r"output\.storage_path 'outputs' would lie in the job's working directory"):
        refuse_lost_output(recipe("outputs"))


@pytest.mark.parametrize("storage_path", ["/shared/outputs", "s3://bucket/outputs"])
def test_a_place_that_stays_is_accepted(monkeypatch: pytest.MonkeyPatch, storage_path: str) -> None:
    submitted(monkeypatch, "gcs://_ray_pkg_0123.zip")
    refuse_lost_output(recipe(storage_path))


def test_without_an_uploaded_folder_a_relative_place_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    submitted(monkeypatch, None)
    refuse_lost_output(recipe("outputs"))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    refuse_lost_output(recipe("outputs"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give a recipe, such as: python jobs/train.py jobs/recipes/playground.yaml"),
        (["r.yaml", "--objective.beta=0.1"], "--objective.beta=0.1: leave out the dashes: objective.beta=0.1"),
        (["r.yaml", "--objective.beta", "0.1"], "--objective.beta: leave out the dashes: objective.beta=VALUE"),
        (["r.yaml", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_command_line_that_is_not_understood_says_what_to_write(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs/train.py"])
    with pytest.raises(SystemExit) as ended:
        recipe_parser("", {}).parse_args(arguments)
    assert ended.value.code == 2
    usage, said = capsys.readouterr().err.splitlines()
    assert usage == "usage: train.py [-h [all]] recipe [dotted.key=value ...]"
    assert said == f"train.py: error: {expected}"


def test_a_terminal_that_lacks_a_sign_is_no_reason_to_fail() -> None:
    job = "from mixdpo_ray.cluster.command import run_command; run_command(lambda: print('0.5 ± 0.1'))"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", job], env=ascii_only, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.5 +- 0.1\n", "")


def test_what_is_cleared_away_behind_a_job_starts_no_ray_of_its_own() -> None:
    job = "from mixdpo_ray.cluster.command import run_command; run_command(lambda: __import__('ray').put(1))"
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Ray has not been started yet" in done.stderr
