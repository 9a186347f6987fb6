"""The job as people run it: one line per check, an exit status to trust, and no colour in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.patients import sound

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(sound(tmp_path)))
    return path


def run(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "doctor.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.cluster
def test_a_sound_recipe_is_exit_status_0(recipe: Path) -> None:
    ran = run(str(recipe))
    assert (ran.returncode, ran.stderr) == (0, "")
    *lines, last = ran.stdout.splitlines()
    assert [line[:6] for line in lines] == ["ok    "] * 16 + ["-     "]
    assert last == "16 checks are green; not checked: time"
    assert "\033" not in ran.stdout
    assert not (recipe.parent / "out").exists()


@pytest.mark.cluster
def test_a_red_check_is_exit_status_1_and_named_in_one_line(recipe: Path) -> None:
    ran = run(str(recipe), "train.global_batch_size=100", "train.schedule.warmup_steps=50")
    assert (ran.returncode, ran.stderr) == (1, "failed: 1 of 17 checks is red: steps\n")
    assert "RED   steps      80 pairs are fewer than train.global_batch_size 100: give more pairs" in ran.stdout


def test_a_typo_is_exit_status_2(recipe: Path) -> None:
    ran = run(str(recipe), "objectve.beta=0.2")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"{recipe}: objectve is unknown; did you mean objective?\n"


def test_a_cluster_that_cannot_be_reached_is_red_and_the_rest_is_checked_all_the_same(recipe: Path) -> None:
    ran = run(str(recipe), RAY_ADDRESS="127.0.0.1:9")
    assert (ran.returncode, ran.stderr) == (1, "failed: 1 of 17 checks is red: cluster\n")
    lines = {line.split()[1]: line for line in ran.stdout.splitlines()}
    assert lines["cluster"].startswith("RED   cluster    RAY_ADDRESS 127.0.0.1:9 does not answer")
    assert lines["storage"] == "-     storage    not checked, because cluster is not sound"
    assert lines["pairs"].startswith("ok ")


@pytest.mark.cluster
def test_a_terminal_gets_signs_and_colours(recipe: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "jobs" / "doctor.py"), str(recipe), "train.global_batch_size=9"]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        pieces = []
        while piece := _read(ours):
            pieces.append(piece)
    os.close(ours)
    text = b"".join(pieces).decode()
    assert process.returncode == 0, text
    assert "\033[32m✓\033[0m cluster    1 node" in text
    assert "\033[33m!\033[0m batch      9 pairs a step" in text
    assert "\033[2m-\033[0m time       \033[2mnot checked: --probe" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal says that its last writer is gone
        return b""
