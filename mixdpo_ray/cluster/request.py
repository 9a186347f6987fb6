"""What a prepared table is asked to be, in one short name: found again without reading a single row of the sources."""

from __future__ import annotations

from mixdpo_ray.cluster.sources import Source
from mixdpo_ray.recipe import Recipe, fingerprint
from mixdpo_ray.training.model import tokenizer_digest as tokenizer_digest

CODE_VERSION = 1  # raise it when the same request would now give another table


def request(recipe: Recipe, tokenizer: str, sources: list[Source]) -> str:
    return fingerprint(
        {
            "code": CODE_VERSION,
            "sources": [source.identity for source in sources],
            "data": recipe.data.model_dump(mode="json", exclude={"max_quarantined_fraction"}),
            "tokenizer": tokenizer,
            "order": recipe.curriculum.order_identity,
        }
    )
