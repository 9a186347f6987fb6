"""A new job is one file in jobs/ and one verb: its command line and its exit statuses are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import violations

ROOT = Path(__file__).parents[2]
PLAYGROUND = "jobs/recipes/playground.yaml"
JOB = '''
"""Tell how many steps a recipe warms up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def warm_up(recipe: Recipe, *, loudly: bool) -> Report:
    from mixdpo_ray.runs.warm_up import warm_up

    return warm_up(recipe, loudly=loudly)


if __name__ == "__main__":
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, warm_up, connect=False, flags={"loudly": "in capitals"})
'''
VERB = '''
"""The warm-up of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from mixdpo_ray.errors import DataError
from mixdpo_ray.recipe.recipe import Recipe


@dataclass(frozen=True)
class WarmUpReport:
    text: str

    def describe(self) -> str:
        return self.text


def warm_up(recipe: Recipe, *, loudly: bool = False) -> WarmUpReport:
    steps = recipe.train.schedule.warmup_steps
    if not steps:
        raise DataError("there is none")
    return WarmUpReport(f"{steps:g} {'STEPS' if loudly else 'steps'}")
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one job and one verb more."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("mixdpo_ray", "jobs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "jobs" / "warm_up.py").write_text(JOB.lstrip())
    (copy / "mixdpo_ray" / "runs" / "warm_up.py").write_text(VERB.lstrip())
    return copy


def run(checkout: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "jobs/warm_up.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_it_explains_itself_and_its_options(checkout: Path) -> None:
    status, shown, said = run(checkout, "--help")
    assert (status, said) == (0, "")
    assert "Tell how many steps a recipe warms up." in shown
    assert "in capitals" in shown
    assert "model.path = (required)" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.schedule.warmup_steps=3"], (0, "3 steps\n", "")),
        (["train.schedule.warmup_steps=3", "--loudly"], (0, "3 STEPS\n", "")),
        (["train.schedule.warmup_steps=0"], (1, "", "failed: there is none\n")),
        (["objectve.beta=1"], (2, "", "command line: objectve is unknown; did you mean objective?\n")),
    ],
)
def test_its_report_is_printed_and_its_exit_status_can_be_trusted(
    checkout: Path, arguments: list[str], expected: tuple[int, str, str]
) -> None:
    assert run(checkout, PLAYGROUND, *arguments) == expected


def test_it_keeps_the_laws_of_imports(checkout: Path) -> None:
    assert violations(checkout) == []
