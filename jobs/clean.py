"""List what lies under a recipe's output.storage_path and who uses it; with --remove, delete what nothing uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def clean(recipe: Recipe, *, remove: bool) -> Report:
    from mixdpo_ray.runs.clean import clean

    return clean(recipe, remove=remove)


if __name__ == "__main__":
    run_job(
        __doc__,
        clean,
        connect=False,
        flags={"remove": "delete what nothing uses; without it, only list"},
        settings=["output.storage_path"],
    )
