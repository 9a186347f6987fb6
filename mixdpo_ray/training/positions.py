"""Whether a model has positions for pairs of data.max_length tokens, told from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from mixdpo_ray.training.model_config import configured, known_config
from mixdpo_ray.training.settings import ModelSettings

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
# families that hold a table of their positions: a token behind its end ends the training
_IN_A_TABLE = ("biogpt", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "openai-gpt", "opt")


@dataclass(frozen=True)
class TooLong:
    text: str
    ends_training: bool  # otherwise answers become worse: rotary positions go on behind what a model was trained with


def too_long_for_model(model: ModelSettings, max_length: int, max_prompt_length: int) -> TooLong | None:
    """What is to be said where data.max_length exceeds the model's positions."""
    positions = configured(model.path, model.revision, *_NAMES)
    if positions is None or max_length <= positions:
        return None
    table = known_config(model.path, model.revision).get("model_type") in _IN_A_TABLE
    prompt = f" and data.max_prompt_length, now {max_prompt_length}, below it" if max_prompt_length >= positions else ""
    has = "has positions for" if table else "was made for"
    return TooLong(
        f"data.max_length {max_length} is more than the {positions} tokens that {model.path} {has}: lower it to "
        f"{positions}{prompt}, or choose a model of longer texts",
        ends_training=table,
    )
