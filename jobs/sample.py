"""Draw answers to prompts from a model: a run's, a folder's or one of the Hub; N to each, and none of them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def sample(recipe: Recipe) -> Report:
    from mixdpo_ray.sampling.sample import sample as sample_answers

    return sample_answers(recipe)


if __name__ == "__main__":
    run_job(__doc__, sample, connect=False, section="sample")
