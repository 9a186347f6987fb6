"""What a prepared table is asked to be, in one short name: found again without reading a single row of the sources."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mixdpo_ray.cluster.sources import Source
from mixdpo_ray.recipe import Recipe, fingerprint

CODE_VERSION = 1  # raise it when the same request would now give another table


def tokenizer_digest(tokenizer: Any) -> str:
    """By content: the same tokenizer in another folder is the same."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {
        "class": type(tokenizer).__name__,
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "vocabulary": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


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
