"""Rate answers to prompts, or pairs without ratings: by a reward model, a judge, a model's implicit reward."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def rate(recipe: Recipe, *, dry_run: bool) -> Report:
    if dry_run:
        from mixdpo_ray.rating.dry_run import plan_ratings

        return plan_ratings(recipe)
    from mixdpo_ray.rating.rate import rate_answers

    return rate_answers(recipe)


DRY_RUN = "tell how many questions a judge would be asked, and what that costs; ask and load nothing"

if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, rate, connect=False, flags={"dry-run": DRY_RUN}, section="answers.rate")
