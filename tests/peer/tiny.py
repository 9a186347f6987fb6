"""A random Llama of two layers with a tokenizer, and random rows for it: for both sides."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.measure.made_rows import save_tokenizer
from tests.peer.setup import Row

VOCABULARY = 64


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder, VOCABULARY)


def rows(count: int) -> list[Row]:
    draw = random.Random(0)

    def ids(longest: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, longest))]

    return [{"prompt_ids": [1, *ids(9)], "chosen_ids": ids(12), "rejected_ids": ids(12)} for _ in range(count)]
