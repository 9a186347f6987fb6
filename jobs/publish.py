"""Write prepared pairs as a data set of prompt, chosen, rejected and margin, with its card; push it where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def publish(recipe: Recipe) -> Report:
    from mixdpo_ray.runs.publish import publish

    return publish(recipe)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, publish)
