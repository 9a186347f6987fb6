"""A trial that also measures what its model is worth; in a file of its own, as workers import it by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mixdpo_ray.comparison.judged_arms import both_judges
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.model_quality import model_quality
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.search.trial import Trial

ANSWERS_EACH = 4  # to every prompt, by either sampler


class MeasuredTrial(Trial):
    """Also measures what its model is worth, while it is there."""

    def done_with_model(self, folder: str) -> Callable[[str], dict[str, float]] | None:
        recipe = self.shared.recipe
        playground = playground_at(Path(recipe.model.path).parent, recipe.train.seed)
        return both_judges(super().done_with_model(folder), partial(true_quality, playground))


def true_quality(playground: PlaygroundFolder, model: str) -> dict[str, float]:
    return model_quality(playground, Path(model), ANSWERS_EACH)


def playground_at(folder: Path, seed: int) -> PlaygroundFolder:
    return PlaygroundFolder(folder, PlaygroundSettings(seed=seed, base_steps=600, prompts=4000, spread=1.0, noise=2.0))
