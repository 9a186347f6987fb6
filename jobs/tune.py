"""Search for better settings: prepare once, train many trials, and leave a recipe, a table and a page of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, before_ray, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def tune(recipe: Recipe) -> Report:
    from mixdpo_ray.search.check import check_search

    check_search(recipe)  # before anything that takes seconds to import
    before_ray("tune", recipe)

    from mixdpo_ray.search.tune import tune

    return tune(recipe)


if __name__ == "__main__":
    run_job(__doc__, tune, connect=False)
