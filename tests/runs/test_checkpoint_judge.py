"""Checkpoints judged beside a training in a tiny playground, and after it where the judge was not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.train import train
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.training.checkpoints import committed_steps

pytestmark = pytest.mark.cluster

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground.yaml"
NOBODY = {"answers.judge": {"engine": "http", "http": {"url": "http://127.0.0.1:9", "model": "none", "tries": 1}}}
DUE = [2, 4, 6, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    PlaygroundFolder(folder / "world", PlaygroundSettings(base_steps=60, base_batch=16, prompts=130, judged=20)).make()
    return folder


def judged_recipe(folder: Path, name: str, **settings: Any) -> Recipe:
    own = {
        "output.storage_path": str(folder),
        "output.name": name,
        "model.path": str(folder / "world" / "base"),
        "data.source.path": str(folder / "world" / "pairs.jsonl"),
        "data.heldout.fraction": 0.2,
        "cluster.num_workers": 1,
        "train.global_batch_size": 32,
        "train.checkpoints.keep_last": 1,
        "train.evaluation.judge": {"every_steps": 2, "prompts": 12},
        "answers.sample.decoding.max_new_tokens": 14,
        "answers.judge": {"engine": "playground"},
    }
    return with_settings(load_recipe(str(RECIPE)), {**own, **settings})


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    text = (folder / "runs" / name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(lines: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if "kind" not in line]


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    return train(judged_recipe(folder, "judged")).describe()


def test_checkpoints_are_judged_and_stand_among_the_metrics(said: str, folder: Path) -> None:
    lines = lines_of(folder, "judged")
    judged = {line["step"]: line for line in lines if line.get("kind") == "judge"}
    assert list(judged) == DUE
    for line in judged.values():
        assert 0 <= line["judge/win_rate"] <= 1
        assert line["judge/prompts"] == 12
    order = [line["step"] + ("kind" not in line) for line in lines]
    assert order == sorted(order), "each stands behind the step that it came after"
    assert f"win rate over the model before training {judged[8]['judge/win_rate']:.3f}" in said
    assert (folder / "runs" / "judged" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_has_answered_is_not_kept(said: str, folder: Path) -> None:
    assert committed_steps(str(folder / "runs" / "judged" / "checkpoints")) == [8]


def test_a_judge_that_fails_is_a_warning_and_the_same_command_asks_again(
    said: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The steps are those of the other run to the last bit, whatever became of the judge."""
    train(judged_recipe(folder, "alone", **NOBODY))
    warned = capfd.readouterr().err
    assert "is not judged yet: " in warned or "warning: not judged: step 2, 4, 6, 8: " in warned
    assert losses(lines_of(folder, "alone")) == losses(lines_of(folder, "judged"))
    again = train(judged_recipe(folder, "alone"))
    assert again.already_finished
    assert [line for line in lines_of(folder, "alone") if line.get("kind") == "judge"] == [
        line for line in lines_of(folder, "judged") if line.get("kind") == "judge"
    ]
