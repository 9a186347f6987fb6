"""Compare methods: train every arm with every seed from shared tables, and tell means, intervals and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, before_ray, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def compare(recipe: Recipe) -> Report:
    from mixdpo_ray.comparison.arms import check_arms, recipes_on_own_files

    check_arms(recipe)  # before anything that takes seconds to import
    before_ray("compare", *recipes_on_own_files(recipe))

    from mixdpo_ray.comparison.compare import compare

    return compare(recipe)


if __name__ == "__main__":
    run_job(__doc__, compare, connect=False)
