"""Compare methods: train every arm with every seed from shared tables, and tell means, intervals and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job, say_ray_starts

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def compare(recipe: Recipe) -> Report:
    from mixdpo_ray.comparison.arms import check_arms

    check_arms(recipe)  # before anything that takes seconds to import
    say_ray_starts("compare")

    from mixdpo_ray.comparison.compare import compare

    return compare(recipe)


if __name__ == "__main__":
    run_job(__doc__, compare, connect=False)
