"""What tells one curated table from another of the same pairs."""

from __future__ import annotations

from typing import Any

from mixdpo_ray.curation.embeddings import embedding_identity
from mixdpo_ray.pairs.curating import DS2, PerpCorrect
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.model_files import model_digest, with_absolute_paths


def curation_identity(recipe: Recipe) -> dict[str, Any]:
    """What curating depends on beyond the pairs: settings, weights, and the training of a surrogate."""
    curate = recipe.data.curate
    assert curate is not None
    content: dict[str, Any] = {"settings": recipe.to_dict()["data"]["curate"]}
    if isinstance(curate, DS2):
        content["embedding"] = embedding_identity(recipe, curate.embedding)
    if isinstance(curate, PerpCorrect):
        start = with_absolute_paths(recipe.model)
        train = recipe.train.identity()
        content |= {"start": model_digest(start), "train": train, "model": start.logps_identity()}
    return content
