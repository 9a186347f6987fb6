"""The base model: a tiny Llama that learns the world from careless demonstrations, and its tokenizer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from torch.nn.functional import cross_entropy

from mixdpo_ray.playground.settings import WorldSettings
from mixdpo_ray.playground.world import LETTERS, OPERATIONS, draw_prompt, noisy_demonstration
from mixdpo_ray.training.model import without_bars

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, END, EQUALS, UNKNOWN = "<pad>", "<eos>", "=", "<unk>"
LEARNING_RATE, WARMUP_STEPS = 2e-3, 50
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
    """0.3 million random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
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
    settings: WorldSettings, tokenizer: PreTrainedTokenizerFast, heard: Callable[[float], object]
) -> LlamaForCausalLM:
    """Supervised fine-tuning from scratch; `heard` is told the loss of each step."""
    draw = random.Random(f"{settings.seed} demonstrations")
    model = make_model(tokenizer, settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for step in range(settings.base_steps):
        optimizer.param_groups[0]["lr"] = _learning_rate(step, settings.base_steps)
        ids, targets = _batch(tokenizer, draw, settings.base_batch)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=NO_TARGET)
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
        heard(loss.item())
    return model


def _learning_rate(step: int, steps: int) -> float:
    return LEARNING_RATE * min(1, step / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batch(tokenizer: PreTrainedTokenizerFast, draw: random.Random, size: int) -> tuple[Tensor, Tensor]:
    """Token ids of demonstrations, and the same with only answers and their ends left: [size, longest] each."""
    prompts = [draw_prompt(draw) for _ in range(size)]
    texts = [f"{prompt.text} {EQUALS} {noisy_demonstration(draw, prompt)} {END}" for prompt in prompts]
    ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    equals = ids == tokenizer.convert_tokens_to_ids(EQUALS)
    in_answer = (equals.cumsum(1) > 0) & ~equals & (ids != tokenizer.pad_token_id)
    return ids, ids.masked_fill(~in_answer, NO_TARGET)
