"""Answers of a model to prompts, in batches, by transformers' own generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    answers_each: int = 1,
    seed: int = 0,
    batch_size: int = 512,
) -> Iterator[list[str]]:
    """For each prompt in turn, its answers. Temperature 0 takes the likeliest token each time.

    A batch holds prompts of one length, so nothing is padded and every prompt is met as it was in training.
    """
    ids = [_prompt_ids(tokenizer, prompt) for prompt in prompts]
    torch.manual_seed(seed)
    answers: list[list[str]] = [[] for _ in prompts]
    for members in _equal_lengths(ids, max(1, batch_size // answers_each)):
        feed = torch.tensor([ids[member] for member in members], device=model.device)
        drawn = _continue(model, tokenizer, feed, max_new_tokens, temperature, answers_each)
        texts = tokenizer.batch_decode(drawn[:, feed.shape[1] :], skip_special_tokens=True)
        for place, member in enumerate(members):
            answers[member] = [text.strip() for text in texts[place * answers_each : (place + 1) * answers_each]]
    yield from answers


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """As pairs/tokens.py makes them: what the template renders, and nothing added."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _equal_lengths(ids: Sequence[list[int]], most: int) -> Iterator[list[int]]:
    lengths = sorted({len(prompt) for prompt in ids})
    for length in lengths:
        members = [number for number, prompt in enumerate(ids) if len(prompt) == length]
        for first in range(0, len(members), most):
            yield members[first : first + most]


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    feed: torch.Tensor,
    max_new_tokens: int,
    temperature: float,
    answers_each: int,
) -> torch.Tensor:
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    drawn: torch.Tensor = model.generate(
        input_ids=feed,
        attention_mask=torch.ones_like(feed),
        max_new_tokens=max_new_tokens,
        num_return_sequences=answers_each,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        use_cache=True,
        **sampling,
    )
    return drawn
