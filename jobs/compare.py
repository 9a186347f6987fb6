"""Compare methods: train every arm with every seed from shared tables, and tell means, intervals and differences."""

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.comparison.arms import check_arms
from mixdpo_ray.recipe.recipe import Recipe


def main(recipe: Recipe) -> None:
    check_arms(recipe)  # before anything that takes seconds to import

    from mixdpo_ray.comparison.compare import compare

    print(compare(recipe).describe())


if __name__ == "__main__":
    run_job(__doc__ or "", main, connect=False)
