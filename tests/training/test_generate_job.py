"""jobs/generate.py on models that were never trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from jobs.generate import generate
from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.answers import side_by_side


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as jobs/train.py leaves it; its model is another one than it started from."""
    folder = tmp_path_factory.mktemp("runs") / "tried"
    write_tiny_model(folder.parent / "base", seed=0)
    write_tiny_model(folder / "model", seed=1)
    model = {"path": str(folder.parent / "base"), "dtype": "float32"}
    recipe = Recipe.model_validate({"model": model, "data": {"source": {"path": "pairs.jsonl"}}})
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe.to_dict(), "identity": {}}))
    return folder


def answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[object, list[str]]:
    """Exit status, and all that was printed."""
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    status = exit_status(generate)
    said = capsys.readouterr()
    return status, (said.out + said.err).splitlines()


def test_a_run_shows_each_prompt_before_and_after(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = run.parent / "prompts.txt"
    prompts.write_text("double a b\n\nswap c d e\n")
    arguments = [str(run), "--prompt", "sort d a c", "--file", str(prompts), "--max-new-tokens=8", "--temperature=0"]
    status, lines = answered(monkeypatch, capsys, *arguments)
    assert status == 0
    assert [line for line in lines if line.startswith(">")] == ["> sort d a c", "> double a b", "> swap c d e"]
    assert sum(line.split() == ["before", "after"] for line in lines) == 3


def test_a_models_folder_alone_gives_one_answer(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run / "model"), "--prompt", "sort d a c", "--max-new-tokens=8", "--dtype=float32"]
    status, lines = answered(monkeypatch, capsys, *arguments)
    assert (status, lines[1:4]) == (0, ["> sort d a c", "answer", "------"])


def test_an_unfinished_run_says_how_to_go_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    status, lines = answered(monkeypatch, capsys, str(tmp_path), "--prompt", "sort d a c")
    assert (status, len(lines)) == (1, 1)
    assert "the run has not finished; repeat jobs/train.py" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no prompt: give --prompt TEXT"),
        (["--prompt", "a", "--temperature=-1"], "--temperature at least 0"),
        (["--prompt", "a", "--max-new-tokens=0"], "must be at least 1"),
    ],
)
def test_what_cannot_work_is_exit_status_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = answered(monkeypatch, capsys, "nowhere", *arguments)
    assert (status, len(lines)) == (2, 1)
    assert said in lines[0]


def test_columns_wrap_and_keep_the_answers_own_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "22")
    text = side_by_side(["before", "after"], ["one two three", "four\n\nfive"])
    assert text.splitlines() == [
        "before      after",
        "------      -----",
        "one two     four",
        "three",
        "            five",
    ]
