"""Train a model on preference pairs from clear to ambiguous; what is not prepared yet is prepared first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.cluster.command import Report, run_job

if TYPE_CHECKING:
    from mixdpo_ray.recipe.recipe import Recipe


def train(recipe: Recipe) -> Report:
    from mixdpo_ray.runs.train import train

    return train(recipe)


if __name__ == "__main__":
    run_job(__doc__, train)
