"""Adapters, whole: started from, compared with, trained with all that peft offers, merged and written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixdpo_ray.difficulty.metric import base_model, language_model
from mixdpo_ray.errors import ModelError
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.training.adapter_files import resolved
from mixdpo_ray.training.checkpoint_export import export_checkpoint
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer, predicting_states
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.model_files import model_digest
from mixdpo_ray.training.settings import CheckpointSettings, LoraSettings, ModelSettings
from tests.training.gang import Gang
from tests.training.test_logps import ANSWERS, PROMPTS, batch_of
from tests.training.test_loop import steps, train, train_until, unlike, weights
from tests.training.tiny import make_job

# peft 0.21 asks transformers 5.24 by the method's name before the last
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.tensor([[3, 4, 5, 6, 7]])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS).logits
    return found


def base_of(tiny: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny / "model", dtype=torch.float32, **options)


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """As people have them: made and written by peft, with nothing at zero."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM",
                        use_rslora=True, lora_dropout=0.3)  # fmt: skip
    model = get_peft_model(base_of(tiny), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(str(folder))
    return str(folder)


def job_of(tiny: Path, run: Path, zero_stage: int = 2, **lora: Any) -> TrainingJob:
    model = {"lora": {"rank": 2, "alpha": 4, **lora}} if "adapter" not in lora else {"lora": lora}
    return make_job(tiny, run, objective=SimPO(), zero_stage=zero_stage, model=model,
                    checkpoints=CheckpointSettings(every_steps=2, keep_last=9))  # fmt: skip


KINDS: list[tuple[int, dict[str, Any]]] = [
    (0, {"rslora": True}),
    (2, {"dora": True, "dropout": 0.2}),
    (2, {"modules_to_save": ("lm_head",)}),
    (2, {"quantize": True, "dropout": 0.1}),
    (3, {"dora": True}),
    (3, {"modules_to_save": ("lm_head",), "dropout": 0.1}),
]


def test_what_dropout_leaves_of_the_output_layer_s_inputs_is_the_same_when_it_is_run_again(tiny: Path) -> None:
    """Chunks of logits are computed again in the backward pass."""
    lora = {"target_modules": ["lm_head"], "dropout": 0.5}
    settings = ModelSettings.model_validate({"path": str(tiny / "model"), "dtype": "float32", "lora": lora})
    scorer = Scorer(load_model(settings)).train()
    (adapter,) = (weight for name, weight in scorer.named_parameters() if "lora_B" in name)
    batch = batch_of(PROMPTS, ANSWERS, easy=2, hard=1)
    states = predicting_states(scorer.model, batch).detach()
    pieces = zip(states.tensor_split(2), batch.targets.tensor_split(2), strict=True)

    def slope(logps: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(5)
        (found,) = torch.autograd.grad(logps().sum(), adapter)
        return found

    kept = slope(lambda: torch.cat([scorer._logps(*piece) for piece in pieces]))
    torch.testing.assert_close(slope(lambda: scorer._scored(states, batch, 2)), kept)


@pytest.mark.parametrize(("zero_stage", "kind"), KINDS)
def test_an_adapter_is_continued_bit_for_bit_and_loads_as_what_was_merged(
    tiny: Path, two: Gang, tmp_path: Path, kind: dict[str, Any], zero_stage: int
) -> None:
    """Killed in the middle; dropout draws again what it drew."""
    if kind.get("quantize"):
        pytest.importorskip("bitsandbytes")
    whole, killed = (job_of(tiny, tmp_path / run, zero_stage, export="both", **kind) for run in ("whole", "killed"))
    two(train, whole)
    if "dropout" in kind:
        two(train_until, killed, 4)
        assert (tmp_path / "killed" / "checkpoints" / "step-2" / "COMMITTED").exists()
        two(train, killed)
        assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "whole")) == 0
        losses = [[line["loss"] for line in steps(tmp_path / run)] for run in ("killed", "whole")]
        assert losses[0] == losses[1]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "model", dtype=torch.float32)
    base = load_quantised(tiny) if kind.get("quantize") else base_of(tiny)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "whole" / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(merged), atol=2e-5, rtol=1e-5)
    assert float((logits(merged) - logits(base_of(tiny))).abs().max()) > 1e-3
    export_checkpoint(str(tmp_path / "whole" / "checkpoints" / "step-5"), whole.model, tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    torch.testing.assert_close(logits(again), logits(merged), atol=1e-6, rtol=0)


def load_quantised(tiny: Path) -> Any:
    """As model.py loads it: without the CPU's kernel, which rounds, and takes widths of 32 only."""
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.float32)  # fmt: skip
    model = base_of(tiny, quantization_config=config)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def start(tiny: Path, **lora: Any) -> ModelSettings:
    return ModelSettings.model_validate({"path": str(tiny / "model"), "dtype": "float32", "lora": lora})


def test_a_model_starts_as_peft_loads_the_adapter(tiny: Path, adapter: str) -> None:
    ours = load_model(start(tiny, adapter=adapter, reference="adapter"))
    theirs = PeftModel.from_pretrained(base_of(tiny), adapter)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-6, rtol=0)
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in ours.named_parameters())
    assert float((logits(ours) - logits(base_of(tiny))).abs().max()) > 1e-2


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_run_starts_from_an_adapter_and_leaves_one(
    tiny: Path, two: Gang, tmp_path: Path, adapter: str, zero_stage: int
) -> None:
    two(train, job_of(tiny, tmp_path, zero_stage, adapter=adapter, reference="base", export="adapter"))
    assert not (tmp_path / "model").exists()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["use_rslora"], config["base_model_name_or_path"]) == (3, True, str(tiny / "model"))
    trained = logits(PeftModel.from_pretrained(base_of(tiny), str(tmp_path / "adapter")))
    moved = float((trained - logits(PeftModel.from_pretrained(base_of(tiny), adapter))).abs().max())
    assert 1e-4 < moved < 1


def test_settings_that_contradict_the_adapter_are_refused(tiny: Path, adapter: str) -> None:
    settings = LoraSettings(adapter=adapter, reference="base", rank=3)
    assert (resolved(settings).alpha, resolved(settings).rslora) == (7, True)
    again = LoraSettings.model_validate(json.loads(settings.model_dump_json()))
    assert again == settings
    assert again.given == settings.given
    with pytest.raises(ModelError, match=r"model\.lora\.rank 16 contradicts .*, which has 3: leave it out"):
        load_model(start(tiny, adapter=adapter, reference="base", rank=16))


def test_the_reference_of_an_adapter_is_chosen_explicitly(adapter: str) -> None:
    with pytest.raises(ValidationError, match="say base or adapter"):
        LoraSettings(adapter=adapter)
    with pytest.raises(ValidationError, match="is of an adapter that is given"):
        LoraSettings(reference="base")


def test_metrics_see_the_policy_with_its_adapter_and_train_from_the_base(adapter: str) -> None:
    """Whatever training compares with."""
    policy = ModelSettings.model_validate({"path": "m", "lora": {"adapter": adapter, "reference": "base"}})
    start = language_model(policy, None)
    assert start.lora is not None
    assert (start.lora.adapter, start.lora.reference) == (adapter, "adapter")
    assert base_model(policy).lora is None


def test_an_adapter_of_another_model_is_refused(tiny: Path, adapter: str, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "adapter_config.json").read_text())
    (tmp_path / "odd" / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["k_proj"]}))
    with pytest.raises(ModelError, match="does not fit the model"):
        load_model(start(tiny, adapter=str(tmp_path / "odd"), reference="base"))


def test_another_adapter_is_another_model(tiny: Path, adapter: str, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "other")
    file = tmp_path / "other" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    paths = (adapter, str(tmp_path / "other"))
    digests = {model_digest(start(tiny, adapter=path, reference="adapter")) for path in paths}
    assert len({model_digest(ModelSettings(path=str(tiny / "model"))), *digests}) == 3


def test_what_is_off_is_recorded_as_earlier_versions_recorded_it() -> None:
    assert LoraSettings().model_dump(mode="json") == {"rank": 16, "alpha": 32.0, "target_modules": "all-linear"}


def test_what_a_run_leaves_makes_no_other_training() -> None:
    merged, both = (ModelSettings(path="m", lora=LoraSettings(export=kind)) for kind in ("merged", "both"))
    assert both.identity() == merged.identity()
