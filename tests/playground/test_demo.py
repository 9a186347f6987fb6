"""The demo as a person runs it, much reduced: one run shared by all tests of this file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from jobs.generate import generate
from mixdpo_ray.cluster.command import exit_status
from tests.runs.trainings import job

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
SMALL = ["--base-steps=30", "--base-batch=16", "--prompts=160", "--judged=40", "train.global_batch_size=32"]


def arguments(storage_path: Path) -> list[str]:
    return [*SMALL, f"output.storage_path={storage_path}"]


@pytest.fixture(scope="module")
def storage_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def said(storage_path: Path) -> str:
    command = [sys.executable, "jobs/playground.py", *arguments(storage_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_ends_with_a_win_rate_and_its_interval(said: str) -> None:
    assert "made a base model and pairs of its answers" in said
    assert "answers to 40 held-out prompts, before and after" in said
    assert "% interval" in said
    assert said.rstrip().endswith("s in all")


def test_it_leaves_what_a_real_run_leaves(said: str, storage_path: Path) -> None:
    run = storage_path / "runs" / "playground"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("kind") != "eval"]
    assert [line["step"] for line in steps] == list(range(len(steps)))
    assert {line["stage"] for line in steps} == {"easy", "hard"}
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert AutoModelForCausalLM.from_pretrained(run / "model").num_parameters() > 140_000
    assert (storage_path / "playground.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_finds_what_the_first_one_made(said: str, storage_path: Path) -> None:
    _, again, _ = job("playground", *arguments(storage_path))
    assert "made a base model" not in again
    assert "was already finished" in again
    assert again[again.index("--- judge") :].splitlines()[:-1] == said[said.index("--- judge") :].splitlines()[:-1]


def test_a_run_answers_before_and_after_side_by_side(
    said: str, storage_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(storage_path / "runs" / "playground")
    monkeypatch.setattr(sys, "argv", ["generate.py", run, "--prompt", "sort d a c", "--max-new-tokens=8"])
    assert exit_status(generate) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "> sort d a c"
    assert lines[2].split() == ["before", "after"]
    assert len(lines) == 5
