"""Every difficulty metric that a recipe names, of all its pairs, and how far they agree."""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.curriculum.settings import RATING_MARGIN
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.correlations import correlations_text, draw_correlations
from mixdpo_ray.preparation.prepare import prepare
from mixdpo_ray.preparation.table_key import base_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.scoring.metric_columns import computed_columns
from mixdpo_ray.tables.keyed_table import SCORES

ALWAYS = (RATING_MARGIN, "length")  # they cost nothing


def score_pairs(recipe: Recipe) -> str:
    """What a person reads. Ray must be connected."""
    table = prepare(base_recipe(recipe), as_base=True)  # all pairs, in an order that needs no scores
    names = dict.fromkeys([*ALWAYS, *recipe.metrics, *recipe.metrics_used])
    columns = computed_columns(recipe, table, list(names))
    train = {name: METRICS[name].easiness(splits["train"]) for name, splits in columns.items()}
    folder = storage.join(storage.absolute(recipe.output.storage_path), SCORES)
    picture = storage.join(folder, f"correlations-{table.manifest.content_digest[:16]}.png")
    storage.write_bytes(picture, draw_correlations(train))
    return "\n".join(
        [
            f"rank correlations of {len(train)} metrics over {table.rows('train')} training pairs "
            "(1: the same order; higher is easier in all of them)",
            correlations_text(train),
            f"picture: {picture}",
        ]
    )
