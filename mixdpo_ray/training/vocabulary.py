"""Whether a model has a vector for every token of its pairs, told from its configuration: nothing heavy is loaded."""

from __future__ import annotations

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.model_config import configured
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
    return configured(name, revision, "vocab_size")
