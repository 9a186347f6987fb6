"""Compute the difficulty metrics that a recipe names, and show how far they agree: rank correlations and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def score(recipe: Recipe) -> Report:
    from mixdpo_ray.preparation.score import score_pairs

    return score_pairs(recipe)


if __name__ == "__main__":
    run_job(__doc__, score)
