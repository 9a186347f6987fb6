"""The table of benchmarks: a key is its file's name, and what a recipe sets is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.benchmarks import BENCHMARKS
from mixdpo_ray.benchmarks.benchmark import Benchmark


@pytest.mark.parametrize(("key", "kind"), BENCHMARKS.items())
def test_a_key_is_the_name_of_its_file(key: str, kind: type[Benchmark]) -> None:
    assert kind.__module__ == f"mixdpo_ray.benchmarks.{key}"


@pytest.mark.parametrize("kind", BENCHMARKS.values())
def test_every_setting_is_explained_and_unknown_ones_are_refused(kind: type[Benchmark]) -> None:
    assert all(field.description for field in kind.model_fields.values())
    with pytest.raises(ValueError, match="judgement"):
        kind.model_validate({"judgement": "x"})


def test_no_text_of_a_benchmark_is_shipped() -> None:
    """Prompts, references and judge templates come from files of the user's."""
    folder = Path(__file__).parents[2] / "mixdpo_ray" / "benchmarks"
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == {".py", ".md"}
