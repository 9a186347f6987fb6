"""A recipe that is sound, ways to make it ill, and a look at what one check says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixdpo_ray.doctor.checks import examine
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Finding
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.recipe.recipe import Recipe

PAIRS = 80


def sound(folder: Path) -> dict[str, Any]:
    """The tree of a recipe that works on this machine."""
    write_pairs(folder / "pairs.jsonl", PAIRS)
    write_tiny_model(folder / "model")
    return {
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "data": {"source": {"path": str(folder / "pairs.jsonl")}, "max_prompt_length": 16, "max_length": 64},
        "train": {"global_batch_size": 8, "per_device_train_batch_size": 4},
        "cluster": {"use_gpu": False},
        "output": {"storage_path": str(folder / "out"), "name": "run"},
    }


def changed(tree: Mapping[str, Any], **changes: Any) -> Recipe:
    """`train__global_batch_size=9` is train.global_batch_size=9."""
    copy: dict[str, Any] = {section: dict(settings) for section, settings in tree.items()}
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = copy
        for parent in parents:
            place[parent] = dict(place.get(parent, {}))
            place = place[parent]
        place[last] = value
    return Recipe.model_validate(copy)


def findings(recipe: Recipe, folder: Path, *, probe: bool = False) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(Examination(recipe, folder, probe))}


def red(recipe: Recipe, folder: Path, check: str) -> str:
    """What a check says that must be red."""
    finding = findings(recipe, folder)[check]
    assert finding.state == "red", finding
    assert "\n" not in finding.text
    return finding.text
