"""The job as people run it: one line per check, an exit status to trust, and no colour in a pipe."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
import ray
import yaml

from mixdpo_ray.doctor.checks import CHECKS
from mixdpo_ray.doctor.run import examine_all
from tests.doctor.examinations import changed, sound
from tests.runs.trainings import job

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


@dataclass(frozen=True)
class Examined:
    folder: Path
    home: Path
    ran: subprocess.CompletedProcess[str]


STARTS = "doctor: loading libraries and starting Ray on this machine\n"


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """A sound recipe, by a job that starts a Ray of its own for a person who has never used one."""
    folder, home = tmp_path_factory.mktemp("sound"), tmp_path_factory.mktemp("home")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(sound(folder)))
    return Examined(folder, home, run(str(folder / "recipe.yaml"), HOME=str(home)))


@pytest.mark.cluster
def test_a_sound_recipe_is_exit_status_0(examined: Examined) -> None:
    ran = examined.ran
    assert (ran.returncode, re.sub(r".* s so far\n", "", ran.stderr)) == (0, STARTS)
    *lines, last = ran.stdout.splitlines()
    assert [line[:6] for line in lines] == ["ok    "] * (len(CHECKS) - 1) + ["-     "]
    assert last == f"{len(CHECKS) - 1} checks are green; not checked: time"
    assert "\033" not in ran.stdout
    assert not (examined.folder / "out").exists()


@pytest.mark.cluster
def test_the_token_that_ray_makes_is_for_its_owner_alone(examined: Examined) -> None:
    assert (examined.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_red_check_is_exit_status_1_and_named_in_one_line(recipe: Path) -> None:
    status, out, err = job("doctor", str(recipe), "train.global_batch_size=100", "train.schedule.warmup_steps=50")
    assert (status, err) == (1, f"failed: 1 of {len(CHECKS)} checks is red: steps\n")
    assert "RED   steps      80 pairs are fewer than train.global_batch_size 100: give more pairs" in out


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_mistake_in_the_recipes_own_files_is_said_first_and_red_in_its_turn(recipe: Path) -> None:
    status, out, err = job("doctor", str(recipe), "data.source.columns={prompt: promt}")
    mistake, *rest = err.splitlines(keepends=True)
    assert mistake.startswith("data.source.columns names promt (for prompt), which the source does not have")
    assert (status, rest) == (1, [f"failed: 1 of {len(CHECKS)} checks is red: data\n"])
    assert f"RED   data       {mistake}" in out


def test_a_typo_is_exit_status_2(recipe: Path) -> None:
    told = "command line: objectve is unknown; did you mean objective?\n"
    assert job("doctor", str(recipe), "objectve.beta=0.2") == (2, "", told)


def test_a_cluster_that_cannot_be_reached_is_red_and_the_rest_is_checked_all_the_same(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # this process may be connected to the tests' own
    status, out, err = job("doctor", str(recipe))
    assert (status, err) == (
        1,
        f"doctor: joining the Ray at 127.0.0.1:9\nfailed: 1 of {len(CHECKS)} checks is red: cluster\n",
    )
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert lines["cluster"].startswith("RED   cluster    RAY_ADDRESS 127.0.0.1:9 does not answer")
    assert lines["storage"] == "-     storage    not checked, because cluster is not sound"
    assert lines["pairs"].startswith("ok ")


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_terminal_gets_signs_and_colours(recipe: Path) -> None:
    settings = changed(yaml.safe_load(recipe.read_text()), train__global_batch_size=9)
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []
    reader = Thread(target=_read_all, args=(ours, pieces))
    reader.start()
    with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stdout(terminal):
        examine_all(settings, ROOT, probe=False)
    reader.join()
    os.close(ours)
    text = b"".join(pieces).decode()
    assert "\033[32m✓\033[0m cluster    this machine: " in text
    assert "\033[33m!\033[0m batch      9 pairs a step" in text
    assert "\033[2m-\033[0m time       \033[2mnot checked: --probe" in text


def _read_all(terminal: int, pieces: list[bytes]) -> None:
    while piece := _read(terminal):
        pieces.append(piece)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal says that its last writer is gone
        return b""
