"""The world on disk: base/ (model and tokenizer), pairs.jsonl, and world.json, written last, which says what made them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixdpo_ray.playground.annotator import RatedPair, pair_of, rate_pairs, to_jsonl
from mixdpo_ray.playground.base_model import train_base_model
from mixdpo_ray.playground.judge import Verdict
from mixdpo_ray.playground.settings import WorldSettings
from mixdpo_ray.playground.world import LONGEST_ANSWER, Prompt, draw_prompts, quality
from mixdpo_ray.training.generation import generate

MARK = "world.json"
ANSWER_TOKENS = LONGEST_ANSWER + 6  # a bad answer may be longer than any ideal one


def build_world(settings: WorldSettings, folder: Path) -> tuple[dict[str, float], bool]:
    """Facts about the world, and whether it was built now; what the same settings made before is used again."""
    mark = folder / MARK
    asked = settings.model_dump()
    if mark.exists() and (found := json.loads(mark.read_text()))["settings"] == asked:
        return found["facts"], False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = folder / "base"
    with tqdm(total=settings.base_steps, desc="base model", unit="step", dynamic_ncols=True) as bar:

        def show(loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        train_base_model(settings, base, show)
    pairs = sample_pairs(settings, base)
    (folder / "pairs.jsonl").write_text(to_jsonl(pairs))
    facts = describe_pairs(pairs)
    mark.write_text(json.dumps({"settings": asked, "facts": facts}, indent=2))
    return facts, True


def training_prompts(settings: WorldSettings) -> list[Prompt]:
    return draw_prompts(random.Random(settings.seed + 1), settings.prompts)


def sample_pairs(settings: WorldSettings, base: Path) -> list[RatedPair]:
    prompts = training_prompts(settings)
    answers = answers_of(base, prompts, settings.seed + 2, settings.answers_each)
    return rate_pairs(random.Random(settings.seed + 3), prompts, answers, settings)


def answers_of(model: Path, prompts: list[Prompt], seed: int, answers_each: int = 1) -> list[list[str]]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    texts = [prompt.text for prompt in prompts]
    drawn = generate(
        policy, tokenizer, texts,
        max_new_tokens=ANSWER_TOKENS, answers_each=answers_each, seed=seed, batch_size=4096,
    )  # fmt: skip
    with tqdm(drawn, total=len(texts), desc=f"answers of {model.name}", unit="prompt", leave=False) as bar:
        return list(bar)


def describe_pairs(pairs: list[RatedPair]) -> dict[str, float]:
    ties = sum(pair.margin == 0 for pair in pairs) / len(pairs)
    wrong = sum(pair.right == 0 for pair in pairs) / len(pairs)
    base_quality = [quality(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    return {"pairs": len(pairs), "ties": ties, "wrong": wrong, "quality": sum(base_quality) / len(base_quality)}


def judge(settings: WorldSettings, before: Path, after: Path) -> Verdict:
    """One sampled answer of each model to prompts that no pair was made from."""
    taken = set(training_prompts(settings))
    prompts = draw_prompts(random.Random(settings.seed + 4), settings.judged, taken)
    answers = [[given[0] for given in answers_of(model, prompts, settings.seed + 5)] for model in (before, after)]
    return Verdict(prompts, *answers)


def read_pairs(folder: Path) -> list[RatedPair]:
    return [pair_of(json.loads(line)) for line in (folder / "pairs.jsonl").read_text().splitlines()]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """transformers draws a bar for each file of even a tiny model; the bars that matter here are our own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
