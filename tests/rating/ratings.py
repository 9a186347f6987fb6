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
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.rating.report import RateReport
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe


def make_folder(folder: Path) -> Path:
    """A policy, another model of its family, a reward model, pairs, answers to a dozen prompts, and a recipe."""
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "tuned", seed=3)
    write_pairs(folder / "pairs.jsonl", 40)
    write_reward_model(folder / "reward")
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"prompt": prompt.text, "answers": [noisy_demonstration(draw, prompt) for _ in range(4)]}
        for prompt in draw_prompts(draw, 12)
    ]
    write_rows(folder / "answers.jsonl", rows)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.2}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 8}}
cluster: {{num_workers: 1, use_gpu: false}}
answers:
  judge: {{engine: playground}}
  rate: {{source: {{path: {folder}/answers.jsonl}}, raters: {{truth: {{kind: playground}}}}}}
"""
    )
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
