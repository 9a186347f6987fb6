"""Search for better settings: prepare once, train many trials, and leave a recipe, a table and a page of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def tune(recipe: Recipe) -> Report:
    from mixdpo_ray.cluster.command import before_ray
    from mixdpo_ray.search.check import check_search

    check_search(recipe)  # before anything that takes seconds to import
    before_ray("tune", recipe)

    from mixdpo_ray.search.tune import tune

    return tune(recipe)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, tune, connect=False)
