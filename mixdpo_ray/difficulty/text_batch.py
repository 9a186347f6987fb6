"""Texts as the input of a model that reads them with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixdpo_ray.pairs.pair import Message

if TYPE_CHECKING:
    from torch import Tensor

Features = dict[str, list[int]]  # input_ids, and whatever else the tokenizer gives for each token


def answered_features(
    tokenizer: Any, prompts: Sequence[list[Message]], answers: Sequence[str], max_length: int
) -> list[Features]:
    """Encode prompts and answers by the tokenizer's chat template; without one as the two texts that it takes.

    What is too long for a template loses its beginning, but for the first token: a score is read at the end.
    """
    if tokenizer.chat_template:
        texts = [
            tokenizer.apply_chat_template(
                [*prompt, Message(role="assistant", content=answer)], tokenize=False, add_generation_prompt=False
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [{"input_ids": one if len(one) <= max_length else one[:1] + one[1 - max_length :]} for one in ids]
    questions = ["\n\n".join(message["content"] for message in prompt) for prompt in prompts]
    return _listed(tokenizer(questions, list(answers), truncation=True, max_length=max_length))


def plain_features(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[Features]:
    return _listed(tokenizer(list(texts), truncation=True, max_length=max_length))


def longest(tokenizer: Any, asked: int) -> int:
    """No longer than the tokenizer says its model can read (an absurd number where it does not say)."""
    return min(asked, int(tokenizer.model_max_length))


def padding_token(tokenizer: Any, features: Sequence[Features]) -> int:
    """One that ends no sequence: decoders find the score as the last token that is no padding."""
    ends = {one["input_ids"][-1] for one in features}
    own = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None]
    return int(next(token for token in (*own, *range(len(ends) + 1)) if token not in ends))


def padded(features: Sequence[Features], padding: int, device: str) -> dict[str, Tensor]:
    """Tensors of the features, padded on the right, [sequences, longest] each, with a mask."""
    import torch

    width = max(len(one["input_ids"]) for one in features)
    filled = {
        name: [one[name] + [padding if name == "input_ids" else 0] * (width - len(one[name])) for one in features]
        for name in features[0]
    }
    filled["attention_mask"] = [[1] * len(one["input_ids"]) + [0] * (width - len(one["input_ids"])) for one in features]
    return {name: torch.tensor(rows, device=device) for name, rows in filled.items()}


def _listed(encoded: Any) -> list[Features]:
    names = [name for name in encoded if name != "attention_mask"]
    return [{name: list(encoded[name][row]) for name in names} for row in range(len(encoded["input_ids"]))]
