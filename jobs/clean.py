"""List what lies under a recipe's output.storage_path and who uses it; with --remove, delete what nothing uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def clean(recipe: Recipe, *, remove: bool) -> Report:
    from mixdpo_ray.runs.clean import clean

    return clean(recipe, remove=remove)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(
        __doc__,
        clean,
        connect=False,
        flags={"remove": "delete what nothing uses; without it, only list"},
        settings=["output.storage_path"],
    )
