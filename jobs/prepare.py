"""Turn raw preference pairs into a checked, tokenised table in curriculum order, once for every run and search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def prepare(recipe: Recipe) -> Report:
    from mixdpo_ray.preparation.prepare import prepare

    return prepare(recipe)


if __name__ == "__main__":
    run_job(__doc__, prepare)
