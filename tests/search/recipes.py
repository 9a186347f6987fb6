"""Recipes with a tune section, whose data and model nobody opens."""

from __future__ import annotations

from typing import Any

from mixdpo_ray.recipe.recipe import Recipe


def make_recipe(tune: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    needed = {"model": {"path": "some/model"}, "data": {"source": {"path": "pairs.jsonl"}}}
    tune = {"early_stopping": {"rungs": 3, "reduction_factor": 3}, **(tune or {})}  # budgets 1, 3 and 9
    return Recipe.model_validate({**needed, "tune": tune, **sections})
