"""Loading, naming, adapting and merging."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.adapters import merged
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.model_files import model_digest
from mixdpo_ray.training.settings import DeepSpeedSettings, LoraSettings, ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, padding_id


def settings(path: Path, **changes: object) -> ModelSettings:
    return ModelSettings.model_validate({"path": str(path), "dtype": "float32", **changes})


def test_a_models_digest_changes_with_its_weights_and_not_with_its_place(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "model", tmp_path / "copy")
    assert model_digest(settings(tmp_path / "copy")) == model_digest(settings(tiny / "model"))
    file = tmp_path / "copy" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert model_digest(settings(tmp_path / "copy")) != model_digest(settings(tiny / "model"))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.path .*nothing.* is no folder"):
        load_model(settings(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"model\.path .*nothing.* is no folder"):
        load_tokenizer(settings(tmp_path / "nothing"))


def test_a_chat_template_is_text_or_a_file(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "style.jinja").write_text("{{ messages }}")
    for given in ("{{ messages }}", str(tmp_path / "style.jinja")):
        assert load_tokenizer(settings(tiny / "model", chat_template=given)).chat_template == "{{ messages }}"
    with pytest.raises(ModelError, match="neither a Jinja template nor a file"):
        load_tokenizer(settings(tiny / "model", chat_template="no-such-file"))


def test_padding_is_the_tokenizers_own(tiny: Path) -> None:
    assert padding_id(load_tokenizer(settings(tiny / "model"))) == 0


def test_dropout_is_off_and_no_cache_is_kept(tiny: Path) -> None:
    model = load_model(settings(tiny / "model"))
    assert all(module.p == 0 for module in model.modules() if isinstance(module, nn.Dropout))
    assert all(getattr(module, "attention_dropout", 0.0) == 0 for module in model.modules())
    assert not model.config.use_cache


def test_adapters_start_at_nothing_and_are_all_that_is_trained(tiny: Path) -> None:
    base = load_model(settings(tiny / "model")).eval()
    adapted = load_model(settings(tiny / "model", lora={"rank": 2})).eval()
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(base(ids).logits, adapted(ids).logits)
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in adapted.named_parameters())


def test_merging_adds_the_adapters_product() -> None:
    """2 + 4 / 2 * (3 * 5 + 1 * 7) = 46, and a bias stays as it is."""
    weights = {
        "layer.base_layer.weight": torch.tensor([[2.0]]),
        "layer.base_layer.bias": torch.tensor([9.0]),
        "layer.lora_A.default.weight": torch.tensor([[5.0], [7.0]]),
        "layer.lora_B.default.weight": torch.tensor([[3.0, 1.0]]),
        "norm.weight": torch.tensor([1.0]),
    }
    found = merged(weights, {"layer": 4 / 2})
    assert {name: tensor.item() for name, tensor in found.items()} == {
        "layer.weight": 46.0, "layer.bias": 9.0, "norm.weight": 1.0,
    }  # fmt: skip


def test_an_adapter_for_layers_that_are_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.lora\.target_modules"):
        load_model(settings(tiny / "model", lora={"target_modules": ["no_such_layer"]}))


def test_settings_that_cannot_work_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"leave model\.reference out"):
        ModelSettings(path="a", lora=LoraSettings(), reference="b")
    with pytest.raises(ValueError, match="offload_parameters needs zero_stage 3, not 2"):
        DeepSpeedSettings(offload_parameters=True)
    with pytest.raises(ValueError, match="offload_optimizer needs zero_stage 1, 2 or 3"):
        DeepSpeedSettings(zero_stage=0, offload_optimizer=True)


@pytest.mark.parametrize(("written", "packing"), [("on", True), ("off", False), ("auto", "auto")])
def test_packing_is_written_as_yaml_has_it(written: str, packing: bool | str) -> None:
    assert ModelSettings.model_validate(yaml.safe_load(f"{{path: here, packing: {written}}}")).packing == packing


def test_packing_that_is_off_leaves_no_trace_in_fingerprints() -> None:
    """What they are made of is what earlier versions recorded, who knew of no packing."""
    padded, packed = ModelSettings(path="here", packing=False), ModelSettings(path="here")
    assert "packing" not in padded.identity()
    assert packed.identity() == {**padded.identity(), "packing": "auto"}
    assert packed.logps_identity() == padded.logps_identity()
    for one in (padded, packed):
        assert ModelSettings.model_validate(one.model_dump(mode="json")) == one
