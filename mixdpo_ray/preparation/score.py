"""Every difficulty metric that a recipe names, of all its pairs, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.curriculum.settings import RATING_MARGIN
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.correlations import correlations_text, draw_correlations, picture_name
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.preparation.table_key import base_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.scoring.metric_columns import computed_columns
from mixdpo_ray.tables.keyed_table import SCORES

ALWAYS = (RATING_MARGIN, "length")  # they cost nothing


@dataclass(frozen=True)
class ScoreReport:
    columns: Mapping[str, NDArray[np.float64]]  # of the training pairs; higher is easier in all of them
    picture: str

    def describe(self) -> str:
        pairs = len(next(iter(self.columns.values())))
        return "\n".join(
            [
                f"rank correlations of {len(self.columns)} metrics over {pairs} training pairs "
                "(1: the same order; higher is easier in all of them)",
                correlations_text(self.columns),
                f"picture: {self.picture}",
            ]
        )


def score_pairs(recipe: Recipe) -> ScoreReport:
    """Compute every difficulty metric that the recipe names, of all its pairs."""
    with ready_cluster(recipe, trains=recipe.trains_for((*recipe.metrics, *recipe.metrics_used))):
        return _score(recipe)


def _score(recipe: Recipe) -> ScoreReport:
    table = prepared_table(base_recipe(recipe), as_base=True)  # all pairs, in an order that needs no scores
    names = dict.fromkeys([*ALWAYS, *recipe.metrics, *recipe.metrics_used])
    columns = computed_columns(recipe, table, list(names))
    train = {name: METRICS[name].easiness(splits["train"]) for name, splits in columns.items()}
    folder = storage.join(storage.absolute(recipe.output.storage_path), SCORES)
    picture = storage.join(folder, picture_name(table.manifest.content_digest, train))
    storage.write_bytes(picture, draw_correlations(train))
    return ScoreReport(train, picture)
