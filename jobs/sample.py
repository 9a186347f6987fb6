"""Draw answers to prompts from a model: a run's, a folder's or one of the Hub; N to each, and none of them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def sample(recipe: Recipe) -> Report:
    from mixdpo_ray.sampling.sample import sample as sample_answers

    return sample_answers(recipe)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, sample, connect=False, section="answers.sample")
