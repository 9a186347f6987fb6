"""Settings of earlier versions: refused with what does their work now, and still read in what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.dotted import set_dotted
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.gone import GONE, recorded_recipe
from mixdpo_ray.recipe.recipe import Recipe, fingerprint

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
PLAYGROUND = str(RECIPES / "playground.yaml")
VALUES = {"compare.world": '{"base_steps": 3}', "curriculum.threshold.tolerance": "1e-6"}


def told(path: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("setting", GONE)
def test_a_setting_that_is_gone_is_one_line_that_says_what_does_its_work(setting: str, tmp_path: Path) -> None:
    value = VALUES.get(setting, "7")
    assert told(PLAYGROUND, f"{setting}={value}") == f"command line: {setting} is gone: {GONE[setting]}"
    tree: dict[str, Any] = {"model": {"path": "m"}, "data": {"source": {"path": "p.jsonl"}}}
    set_dotted(tree, setting, yaml.safe_load(value))
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert told(str(path)) == f"{path}: {setting} is gone: {GONE[setting]}"


def as_recorded_before(recipe: Recipe) -> dict[str, Any]:
    """What an earlier version wrote into recipe.json."""
    content = recipe.to_dict()
    content["curriculum"]["threshold"]["tolerance"] = 1e-9
    content["deepspeed"] |= {"reduce_bucket_size": 5, "allgather_bucket_size": 5}
    content["cluster"] |= {"prefetch_windows": 4, "windows_per_read": 10}
    content["train"]["max_grad_norm"] = content["train"]["optimizer"].pop("max_grad_norm")
    content["output"]["tensorboard"] = "tensorboard" in content["output"].pop("trackers")
    content["compare"]["world"] = content["compare"].pop("playground")
    assert content["model"].pop("packing") is False
    return json.loads(json.dumps(content).replace("<playground>", "<world>"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["playground", "playground-compare"])
@pytest.mark.parametrize("trackers", ["{}", "[tensorboard]"])
def test_what_earlier_versions_recorded_is_read_as_the_recipe_of_today(name: str, trackers: str) -> None:
    recipe = load_recipe(str(RECIPES / f"{name}.yaml"), ["model.packing=off", f"output.trackers={trackers}"])
    assert recorded_recipe(as_recorded_before(recipe)) == recipe == recorded_recipe(recipe.to_dict())


def test_a_run_of_an_earlier_version_has_the_same_identity() -> None:
    """The digest was taken while the threshold's tolerance was a setting. If a default changes, so may this."""
    recipe = recorded_recipe({"model": {"path": "m"}, "data": {"source": {"path": "p.jsonl"}}})
    assert fingerprint(recipe.training_identity()) == "9719399034949075"
