"""A new objective is one file and one key: everything that knows objectives then knows it, and asks for its numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBERS, LAWS = "tests/objectives/test_worked_numbers.py", "tests/objectives/test_laws.py"
TABLES = "tests/test_readme.py::test_the_tables_of_objectives_metrics_and_rooms_are_those_of_the_code"
DUMMY = '''
"""A made-up objective."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor


class Dummy(LogRatioObjective):
    """Minus the gap, times a strength"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "strength": {"uniform": (0.5, 2.0)}}

    strength: float = Field(1.0, gt=0, description="Of the push")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -self.strength * self.logit(pairs)
'''
USED = """
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.search.space import Space

recipe = load_recipe("jobs/recipes/playground.yaml", ["objective={name: dummy, strength: 1.5}"])
print(recipe.objective)
print([knob.name for knob in Space.of(recipe).walk() if knob.name.startswith("objective.")])
both = load_recipe("jobs/recipes/playground.yaml", ["tune.space={objective.name: {choice: [dpo, dummy]}}"])
print([knob.name for knob in Space.of(both).walk()])
load_recipe("jobs/recipes/playground.yaml", ["objective={name: dumy}"])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one file and one key more."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("mixdpo_ray", "tests", "jobs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "mixdpo_ray" / "objectives" / "dummy.py").write_text(DUMMY.lstrip())
    table = copy / "mixdpo_ray" / "objectives" / "__init__.py"
    text = table.read_text().replace("\nOBJECTIVES:", "from mixdpo_ray.objectives.dummy import Dummy\n\nOBJECTIVES:")
    table.write_text(text.replace('    "sft": SFT,\n', '    "sft": SFT,\n    "dummy": Dummy,\n'))
    return copy


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def outcome(checkout: Path, *names: str) -> tuple[int, str]:
    """Exit status and report of these tests; warnings of libraries are none of theirs."""
    ran = python(checkout, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *names)
    return ran.returncode, ran.stdout


def test_recipes_and_searches_know_it_by_its_key(checkout: Path) -> None:
    ran = python(checkout, "-c", USED)
    recipe, space, both = ran.stdout.splitlines()
    assert recipe == "beta=0.1 strength=1.5"
    assert space == "['objective.beta', 'objective.strength']"
    assert "objective.strength [dummy]" in both
    assert "unknown objective 'dumy'; did you mean dummy?" in ran.stderr


def test_tests_ask_for_its_worked_numbers_and_its_line_in_the_readme(checkout: Path) -> None:
    """One process each for what is red before they are written and what is green afterwards."""
    numbers = f"{NUMBERS}::test_every_objective_has_worked_numbers"
    status, report = outcome(checkout, numbers, TABLES)
    assert status == 1
    assert f"FAILED {numbers}" in report
    assert f"FAILED {TABLES}" in report

    file = checkout / NUMBERS
    # 1.5 x 0.1 x 1.3, slopes 0.15
    text = file.read_text().replace(
        "WORKED = [", 'WORKED = [\n    Worked("dummy", {"strength": 1.5}, -0.195, -0.15, 0.15),', 1
    )
    file.write_text(text)
    assert python(checkout, "-m", "tests.readme_tables").returncode == 0
    line = "| `dummy` | Minus the gap, times a strength | `beta 0.1`, `strength 1` | reference |"
    assert line in (checkout / "mixdpo_ray" / "objectives" / "README.md").read_text()

    status, report = outcome(
        checkout, NUMBERS, LAWS, TABLES, "-k", "dummy or Dummy or every_objective_has or the_tables"
    )
    assert status == 0, report
    assert f"PASSED {numbers}" in report
    assert f"PASSED {TABLES}" in report
