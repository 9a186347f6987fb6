"""A cheap model and cheap pairs of the playground, for tests and first tries: nothing is trained."""

from __future__ import annotations

import random
from pathlib import Path

from mixdpo_ray.playground.annotator import RatedPair, rate_pairs, write_jsonl
from mixdpo_ray.playground.base_model import make_model, make_tokenizer, save
from mixdpo_ray.playground.prompts import Prompt, draw_prompts, noisy_demonstration
from mixdpo_ray.playground.settings import PlaygroundSettings


def write_tiny_model(folder: Path, seed: int = 0) -> None:
    """A Llama with random weights and the playground's tokenizer, for from_pretrained."""
    tokenizer = make_tokenizer()
    save(make_model(tokenizer, seed), tokenizer, folder)


def write_pairs(path: Path, count: int, seed: int = 0) -> list[RatedPair]:
    """A jsonl of so many pairs in the columns of ultrafeedback_binarized; the answers are careless demonstrations."""
    draw, settings = random.Random(seed), PlaygroundSettings()
    taken: set[Prompt] = set()
    pairs: list[RatedPair] = []
    while len(pairs) < count:
        prompts = draw_prompts(draw, count - len(pairs), taken)
        taken.update(prompts)
        answers = [[noisy_demonstration(draw, prompt) for _ in range(settings.answers_each)] for prompt in prompts]
        pairs += rate_pairs(draw, prompts, answers, settings)
    write_jsonl(pairs, path)
    return pairs
