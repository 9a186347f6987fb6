"""Whether a model has a vector for every token of its pairs, told from its configuration: nothing heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.settings import ModelSettings


def check_vocabulary(settings: ModelSettings, largest: int) -> None:
    """Refuse a model or a reference whose vocabulary ends before the largest token id that its tokenizer writes."""
    for setting, name, revision in (
        ("model.path", settings.path, settings.revision),
        ("model.reference", settings.reference, None),
    ):
        size = None if name is None else vocabulary_size(name, revision)
        if size is not None and largest >= size:
            tokenizer = settings.tokenizer or settings.path
            raise ModelError(
                f"{setting} {name} knows {size:,} tokens, and tokenizer {tokenizer} writes ids up to {largest:,}: give "
                "the tokenizer that the model was trained with (model.tokenizer), or a model with a larger vocabulary"
            )


def vocabulary_size(name: str, revision: str | None = None) -> int | None:
    """The number of token ids that a model knows; None where its configuration is not on this machine or is silent."""
    file = Path(name) / "config.json"
    if not file.is_file():
        cached = _cached(name, revision)
        if cached is None:
            return None
        file = cached
    try:
        config = json.loads(file.read_bytes())
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    except (ValueError, AttributeError):
        return None  # whoever loads the model says what is wrong with it
    return size if isinstance(size, int) else None


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a path, and no name
        return None
    return Path(found) if isinstance(found, str) else None
