"""What a recipe that cannot work is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe


def complaint(path: Path, *overrides: str, check: Callable[[Recipe], object] = lambda recipe: None) -> str:
    """The refusal, without where the setting was written. `check`: what looks at the recipe once it is read."""
    with pytest.raises(RecipeError) as caught:
        check(load_recipe(str(path), overrides))
    return str(caught.value).removeprefix(f"{path}: ").removeprefix("command line: ")
