"""Rounds of a tiny model in the playground: killed and interrupted they end as those that nobody disturbs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.iteration.iterate import iterate
from mixdpo_ray.iteration.output import IterateOutput
from mixdpo_ray.iteration.round_recipes import run_of_round
from mixdpo_ray.playground.base_model import make_tokenizer, save, train_base_model
from mixdpo_ray.playground.prompts import draw_prompts
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.search.studies import StudyJob

pytestmark = pytest.mark.cluster
RECIPE = """
model: {path: model, dtype: float32}
data: {source: {path: rated.jsonl, format: rated_answers}, heldout: {fraction: 0.1}, max_prompt_length: 16, max_length: 64}
answers:
  sample:
    prompts: {source: {path: prompts.jsonl}}
    answers_each: 4
    batch_size: 64
    decoding: {max_new_tokens: 8}
  rate: {raters: {truth: {kind: playground}}}
  judge: {engine: playground}
  iterate: {rounds: 2, prompts_each: 48, judged: 60}
curriculum: {mode: sorted_dpo, order: shuffled}
train:
  global_batch_size: 16
  per_device_train_batch_size: 16
  num_train_epochs: 6
  optimizer: {learning_rate: 1e-3}
  checkpoints: {every_steps: 5}
deepspeed: {zero_stage: 0}
cluster: {num_workers: 1, use_gpu: false}
output: {storage_path: out}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iteration")
    tokenizer = make_tokenizer()
    model = train_base_model(PlaygroundSettings(base_steps=150, base_batch=16), tokenizer, lambda loss: None)
    save(model, tokenizer, folder / "model")
    prompts = draw_prompts(random.Random(0), 160)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one.text}) + "\n" for one in prompts))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def recipe(folder: Path, name: str, *overrides: str) -> Recipe:
    paths = ["model.path=model", "answers.sample.prompts.source.path=prompts.jsonl", "output.storage_path=out"]
    absolute = [f"{key}={folder / value}" for key, _, value in (one.partition("=") for one in paths)]
    return load_recipe(str(folder / "recipe.yaml"), [*absolute, f"output.name={name}", *overrides])


@pytest.fixture(scope="module")
def calm(folder: Path, local_ray: None) -> IterateOutput:
    return iterate(recipe(folder, "calm"))


def weights(folder: Path, name: str, number: int) -> bytes:
    return Path(run_of_round(recipe(folder, name), number), "model", "model.safetensors").read_bytes()


def test_each_round_begins_where_the_last_one_ended_and_is_judged_over_it(calm: IterateOutput, folder: Path) -> None:
    first, second = calm.rounds
    print(calm.describe())
    assert first.over_last == first.over_first
    assert (first.pairs.prompts, first.pairs.answers) == (48, 192)
    assert first.pairs.trained + first.pairs.held_out + sum(first.pairs.quarantined.values()) == 48
    began = [
        json.loads(Path(run_of_round(calm.recipe, n), "recipe.json").read_text())["recipe"]["model"] for n in (1, 2)
    ]
    assert [one["path"] for one in began] == [str(folder / "model"), first.model]
    assert [one["reference"] for one in began] == [None, str(folder / "model")]
    assert first.begins_with != second.begins_with
    assert AutoModelForCausalLM.from_pretrained(second.model).num_parameters() > 140_000
