"""What a training of adapters is compared with: the base, the adapter that it starts from, or a base in 4 bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.extras import extras_for_training
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.inputs import input_problems
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring.reference import reference_model
from mixdpo_ray.search.space import default_space
from mixdpo_ray.training.model_files import model_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(256))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"adapter")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{path: {tmp_path}/model}}\ndata: {{source: {{path: {tmp_path}/pairs.jsonl}}}}\n"
    )
    return tmp_path


def recipe(folder: Path, lora: str, *overrides: str) -> Recipe:
    return load_recipe(str(folder / "recipe.yaml"), [f"model.lora={lora}", *overrides])


def identity(given: Recipe) -> str:
    model = reference_model(given)
    return fingerprint([model.logps_identity(), model_digest(model)])


def test_the_reference_is_the_base_or_the_adapter_as_the_recipe_says(folder: Path) -> None:
    plain = recipe(folder, "{rank: 4}")
    base, start = (recipe(folder, f"{{adapter: {folder}/adapter, reference: {one}}}") for one in ("base", "adapter"))
    assert reference_model(plain).lora is None
    assert reference_model(base).lora is None
    assert identity(plain) == identity(base)
    with_adapter = reference_model(start).lora
    assert with_adapter is not None
    assert with_adapter.adapter == f"{folder}/adapter"
    assert identity(start) != identity(base)


def test_the_reference_follows_the_adapters_weights_and_not_what_is_trained_or_left(folder: Path) -> None:
    lora = f"{{adapter: {folder}/adapter, reference: adapter}}"
    before = identity(recipe(folder, lora))
    assert identity(recipe(folder, lora[:-1] + ", dropout: 0.1, export: both}")) == before
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"another")
    assert identity(recipe(folder, lora)) != before


def test_a_base_in_4_bits_is_its_own_reference(folder: Path) -> None:
    one, other = (recipe(folder, f"{{rank: {rank}, quantize: true}}") for rank in (4, 8))
    lora = reference_model(one).lora
    assert lora is not None
    assert lora.quantize
    assert identity(one) == identity(other) != identity(recipe(folder, "{rank: 4}"))
    assert [extra.name for extra in extras_for_training(one)] == ["lora", "bitsandbytes"]


def test_a_base_in_4_bits_is_not_sharded(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"weights in 4 bits are not sharded, and deepspeed\.zero_stage is 3"):
        recipe(folder, "{quantize: true}", "deepspeed.zero_stage=3")


def test_a_recipe_that_contradicts_its_adapter_is_refused_before_any_work(folder: Path) -> None:
    given = recipe(folder, f"{{adapter: {folder}/adapter, reference: base, alpha: 32}}")
    text = f"model.lora.alpha 32.0 contradicts model.lora.adapter {folder}/adapter, which has 8: leave it out"
    assert text in input_problems(given)


def test_the_rate_of_muons_matrices_is_searched_where_it_is_given(folder: Path) -> None:
    overrides = ["train.optimizer={name: muon, learning_rate: 1e-5, muon_learning_rate: 4e-5}"]
    space = default_space(load_recipe(str(folder / "recipe.yaml"), overrides))
    assert space["train.optimizer.muon_learning_rate"] == {"loguniform": pytest.approx([8e-6, 2e-4])}
