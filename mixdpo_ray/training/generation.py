"""Answers of a model to prompts, in batches, by transformers' own generate: how a playground's answers are made.

They follow from the seed and the batch. Everything else samples by keys (keyed_sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixdpo_ray.pairs.tokens import TEMPLATE_ERRORS
from mixdpo_ray.training.tokenizer import padding_id

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

PROBE = "probe of where the answer ends"


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    answers_each: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    heard: Callable[[int], object] = lambda answered: None,
) -> list[list[str]]:
    """Each prompt's answers, sampled from the whole distribution; temperature 0 takes the likeliest token each time.

    `batch_size` counts answers. Prompts of like length share a batch, so little of it is padding. `heard` is told how
    many prompts of each batch are answered.
    """
    ids = [chat_prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in prompts]
    by_length = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    together = max(1, batch_size // answers_each)
    padding, ends = padding_id(tokenizer), end_ids(model, tokenizer)
    answers: list[list[str]] = [[] for _ in prompts]
    with torch.inference_mode(), _seeded(model.device, seed):
        for first in range(0, len(ids), together):
            members = by_length[first : first + together]
            padded, mask = left_padded([ids[member] for member in members], padding)
            drawn = model.generate(
                input_ids=padded.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                num_return_sequences=answers_each,
                pad_token_id=padding,
                eos_token_id=ends or None,
                use_cache=True,
                **_sampling(temperature),
            )
            texts = tokenizer.batch_decode(drawn[:, padded.shape[1] :], skip_special_tokens=True)
            for row, member in enumerate(members):
                answers[member] = [text.strip() for text in texts[row * answers_each : (row + 1) * answers_each]]
            heard(len(members))
    return answers


def left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [prompts, longest]: all prompts end where their answers begin."""
    longest = max(map(len, prompts))
    ids = [[padding] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the model's and the tokenizer's own, and the one that the chat template puts there."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = own if isinstance(own, list) else [own]
    return sorted({*(end for end in ends if end is not None), *tokenizer_ends(tokenizer)})


def tokenizer_ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokenizer's own end, and the token that the chat template puts behind an answer."""
    try:
        whole = _render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}])
    except TEMPLATE_ERRORS:  # one of prompts alone
        whole = ""
    behind = _ids(tokenizer, whole.rpartition(PROBE)[2])
    special = [token for token in behind if token in tokenizer.all_special_ids]
    return sorted({end for end in (tokenizer.eos_token_id, *special[:1]) if end is not None})


def chat_prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, object]], **template_kwargs: Any
) -> list[int]:
    """The ids of a prompt, tokenised as the pairs were for training: what the template renders, and nothing added."""
    return _ids(tokenizer, _render(tokenizer, messages, add_generation_prompt=True, **template_kwargs))


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, object]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template([dict(turn) for turn in messages], tokenize=False, **options))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _sampling(temperature: float) -> dict[str, Any]:
    """Whatever the model's folder suggests about sampling is overruled."""
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draws follow from the seed, and the caller's generators stay as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
