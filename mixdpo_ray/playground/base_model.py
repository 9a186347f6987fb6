"""The base model: a tiny Llama that learns the world from careless demonstrations, and its tokenizer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.playground.settings import WorldSettings
from mixdpo_ray.playground.world import LETTERS, OPERATIONS, draw_prompt, noisy_demonstration

PAD, END, EQUALS, UNKNOWN = "<pad>", "<eos>", "=", "<unk>"
LEARNING_RATE, WARMUP = 2e-3, 50
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ message.content }} ={% else %} {{ message.content }} <eos>{% endif %}"
    "{% endfor %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token."""
    words = [PAD, END, EQUALS, *OPERATIONS, *LETTERS, UNKNOWN]
    model = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    model.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
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


def train_base_model(settings: WorldSettings, folder: Path, progress: Callable[[float], None]) -> None:
    """Supervised fine-tuning from scratch; `progress` hears the loss of each step."""
    draw = random.Random(settings.seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for step in range(settings.base_steps):
        optimizer.param_groups[0]["lr"] = (
            LEARNING_RATE * min(1, step / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / settings.base_steps))
        )
        loss = _loss(model, tokenizer, draw, settings.base_batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(loss.item())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draw: random.Random, batch: int) -> torch.Tensor:
    """Mean over answer tokens, the end included."""
    prompts = [draw_prompt(draw) for _ in range(batch)]
    answers = [noisy_demonstration(draw, prompt) for prompt in prompts]
    texts = [f"{prompt.text} {EQUALS} {answer} {END}" for prompt, answer in zip(prompts, answers, strict=True)]
    ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    targets = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    after_equals = (ids == tokenizer.convert_tokens_to_ids(EQUALS)).cumsum(1).bool()
    targets = targets[:, 1:].masked_fill(~after_equals[:, :-1], -100)
    logits = model(input_ids=ids).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), targets.flatten())
