"""Compare methods: train every arm with every seed from shared tables, and tell means, intervals and differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def compare(recipe: Recipe) -> Report:
    from mixdpo_ray.cluster.command import before_ray
    from mixdpo_ray.comparison.arms import check_arms, recipes_on_own_files

    check_arms(recipe)  # before anything that takes seconds to import
    before_ray("compare", *recipes_on_own_files(recipe))

    from mixdpo_ray.comparison.compare import compare

    return compare(recipe)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, compare, connect=False)
