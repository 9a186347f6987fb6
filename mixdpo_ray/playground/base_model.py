"""The base model: a tiny Llama that learns the playground from demonstrations, and its tokenizer.

First they are careful, by which the operations are learned in a third of the steps; then careless, so that it says what
careless teachers say.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from mixdpo_ray.playground.prompts import LETTERS, OPERATIONS, draw_prompt, noisy_demonstration
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.training.model import without_bars

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, END, EQUALS, UNKNOWN = "<pad>", "<eos>", "=", "<unk>"
LEARNING_RATE, WARMUP_STEPS, MAX_GRAD_NORM = 3e-3, 50, 1.0
CAREFUL = 0.6  # share of the steps
SORTED_BATCHES = 8  # drawn at once and cut by length, so that little of a batch is padding
NO_TARGET = -100  # what cross_entropy passes over
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ message.content }} ={% else %} {{ message.content }} <eos>{% endif %}"
    "{% endfor %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token."""
    from transformers import PreTrainedTokenizerFast

    words = [PAD, END, EQUALS, *OPERATIONS, *LETTERS, UNKNOWN]
    model = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    model.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """0.15 million random weights; positions turn fast, as the longest sequence has two dozen tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10.0},
        initializer_range=0.1,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    with without_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_base_model(
    settings: PlaygroundSettings, tokenizer: PreTrainedTokenizerFast, heard: Callable[[float], object]
) -> LlamaForCausalLM:
    """Supervised fine-tuning from scratch; `heard` is told the loss of each step."""
    draw = random.Random(f"{settings.seed} demonstrations")
    model = make_model(tokenizer, settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for step, (ids, targets) in enumerate(_batches(tokenizer, draw, settings)):
        optimizer.param_groups[0]["lr"] = _learning_rate(step, settings.base_steps)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=NO_TARGET)
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        heard(loss.item())
    return model


def _learning_rate(step: int, steps: int) -> float:
    return LEARNING_RATE * min(1, step / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batches(
    tokenizer: PreTrainedTokenizerFast, draw: random.Random, settings: PlaygroundSettings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids of demonstrations, and the same with only answers and their ends left: [batch, longest] each."""
    size, steps = settings.base_batch, settings.base_steps
    for first in range(0, steps, SORTED_BATCHES):
        careful = first < CAREFUL * steps
        texts = [_demonstration(draw, careful) for _ in range(SORTED_BATCHES * size)]
        rows = sorted(tokenizer(texts)["input_ids"], key=len)
        starts = list(range(0, len(rows), size))
        draw.shuffle(starts)
        for start in starts[: steps - first]:
            members = [torch.tensor(row) for row in rows[start : start + size]]
            ids = pad_sequence(members, batch_first=True, padding_value=tokenizer.pad_token_id)
            equals = ids == tokenizer.convert_tokens_to_ids(EQUALS)
            in_answer = (equals.cumsum(1) > 0) & ~equals & (ids != tokenizer.pad_token_id)
            yield ids, ids.masked_fill(~in_answer, NO_TARGET)


def _demonstration(draw: random.Random, careful: bool) -> str:
    prompt = draw_prompt(draw)
    answer = " ".join(prompt.ideal) if careful else noisy_demonstration(draw, prompt)
    return f"{prompt.text} {EQUALS} {answer} {END}"
