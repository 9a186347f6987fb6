"""Tiny models, answers and recipes that tests of ratings share."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from mixdpo_ray.playground.base_model import make_tokenizer
from mixdpo_ray.playground.prompts import draw_prompts, noisy_demonstration
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.rating.report import RateReport
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.recipe.small_recipe import write_answers_recipe


def make_folder(folder: Path) -> Path:
    """A policy, another model of its family, a reward model, pairs, answers to a dozen prompts, and a recipe."""
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "tuned", seed=3)
    write_reward_model(folder / "reward")
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"prompt": prompt.text, "answers": [noisy_demonstration(draw, prompt) for _ in range(4)]}
        for prompt in draw_prompts(draw, 12)
    ]
    write_rows(folder / "answers.jsonl", rows)
    rate = {"source": {"path": f"{folder}/answers.jsonl"}, "raters": {"truth": {"kind": "playground"}}}
    write_answers_recipe(folder, 40, 0.2, {"judge": {"engine": "playground"}, "rate": rate})
    return folder


def write_reward_model(folder: Path) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.3, **size)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder: Path, *overrides: str, out: str = "out") -> Recipe:
    return load_recipe(str(folder / "recipe.yaml"), [f"output.storage_path={folder / out}", *overrides])


def lines(report: RateReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(report.file).read_text().splitlines()]


def answers(report: RateReport) -> list[dict[str, Any]]:
    return [answer for line in lines(report) for answer in line["answers"]]
