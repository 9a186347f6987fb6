"""Recipes with a tune section, whose data and model nobody opens."""

from __future__ import annotations

from typing import Any

from mixdpo_ray.recipe import Recipe


def make_recipe(tune: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    needed = {"model": {"path": "some/model"}, "data": {"source": {"path": "pairs.jsonl"}}}
    return Recipe.model_validate({**needed, "tune": tune or {}, **sections})
