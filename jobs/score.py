"""Compute the difficulty metrics that a recipe names, and show how far they agree: rank correlations and a picture."""

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.recipe.recipe import Recipe


def main(recipe: Recipe) -> None:
    from mixdpo_ray.cluster.preflight import preflight
    from mixdpo_ray.preparation.score import score_pairs

    preflight(recipe, trains=recipe.trains_for((*recipe.metrics, *recipe.metrics_used)))
    print(score_pairs(recipe))


if __name__ == "__main__":
    run_job(__doc__ or "", main)
