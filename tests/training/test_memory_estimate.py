"""The memory estimate: worked by hand for an 8B model, and held against what tensors really take on CPU."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, Qwen3MoeConfig

from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.training.adapter_memory import adapters_of
from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.memory_estimate import (
    CPU_RUNTIME,
    CUDA_RUNTIME,
    ModelShape,
    checkpoint_bytes,
    model_bytes,
    pass_tokens,
    shape_by_name,
    shape_from,
    shape_of,
    worker_memory,
)
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.settings import DeepSpeedSettings, LoraSettings, ModelSettings, OptimizerName, TrainSettings
from tests.training.gang import Gang
from tests.training.memory_peaks import full_batch, peak_bytes
from tests.training.test_loop import train
from tests.training.tiny import make_job

LLAMA_8B = ModelShape(
    parameters=8_030_261_248,
    trained=8_030_261_248,
    element=2,
    layers=32,
    hidden=4096,
    intermediate=14336,
    queries=4096,
    keys=1024,
    vocabulary=128_256,
)
SMALL: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def small_shape(dtype: str, folder: str = "-", **model: Any) -> ModelShape:
    config = LlamaConfig(**SMALL)
    with torch.device("meta"):
        shell = LlamaForCausalLM(config)
    settings = ModelSettings.model_validate({"path": folder, "dtype": dtype, **model})
    return shape_from(config, shell, settings)


def test_llama_3_8b_is_built_without_storage_and_counted() -> None:
    """Embeddings and output 2 x 128,256 x 4096; a layer 2 x 4096^2 + 2 x 4096 x 1024 + 3 x 4096 x 14336 + 2 x 4096."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        shell = LlamaForCausalLM(config)
    shape = shape_from(config, shell, ModelSettings(path="-"))
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert shape.parameters == 2 * 128_256 * 4096 + 32 * layer + 4096 == LLAMA_8B.parameters
    assert (shape.queries, shape.keys, shape.layers, shape.element) == (4096, 1024, 32, 2)


def test_an_8b_model_under_stage_3_on_eight_workers() -> None:
    """2 pairs of 1,024 tokens are 4,096 tokens. A layer keeps 16 x 4096 + 2 x 14,336 + 8 x 14,336 of each."""
    train = TrainSettings(per_device_train_batch_size=2, gradient_checkpointing=True)
    memory = worker_memory(LLAMA_8B, train, DeepSpeedSettings(zero_stage=3), pass_tokens(train, 1024), 8, gpu=True)
    layer = 65_536 + 28_672 + 114_688
    assert LLAMA_8B.layer_bytes == layer == 208_896
    assert memory.device == {
        "weights": 2_007_565_312,  # 2 x 8.03e9 / 8
        "gathered": 2_000_000_000,
        "master": 4_015_130_624,
        "moments": 8_030_261_248,
        "gradients": 4_015_130_624,
        "reduction": 2 * 2 * 200_000_000,
        "activations": 4096 * (2 * 4096 * 32 + 2 * layer + 32_768),
        "logits": 4096 * 128_256 * 2,
        "runtime": CUDA_RUNTIME,
    }
    assert memory.device_bytes / 2**30 == pytest.approx(24.63, abs=0.01)
    assert memory.largest(1) == [("moments", 8_030_261_248)]


def test_an_8b_model_under_stage_2_on_four_workers_without_checkpointing() -> None:
    """Weights are whole; 32 layers and one more at work keep 209 kB of each of 4,096 tokens: 28 GB."""
    memory = worker_memory(LLAMA_8B, TrainSettings(), DeepSpeedSettings(zero_stage=2), 4096, 4, gpu=True)
    assert memory.device["weights"] == 16_060_522_496
    assert memory.device["master"] + memory.device["moments"] == 12 * LLAMA_8B.parameters // 4
    assert memory.device["activations"] == 4096 * (33 * 208_896 + 32_768)
    assert memory.host == {"loading": 16_060_522_496, "runtime": CPU_RUNTIME}


def test_offloading_moves_optimizer_and_weights_to_the_host() -> None:
    offloads = DeepSpeedSettings(zero_stage=3, offload_optimizer=True, offload_parameters=True)
    memory = worker_memory(LLAMA_8B, TrainSettings(), offloads, 4096, 8, gpu=True)
    assert not {"master", "moments", "gradients", "weights"} & set(memory.device)
    assert memory.host["master"] + memory.host["moments"] + memory.host["gradients"] == 16 * LLAMA_8B.parameters // 8


def test_liger_s_kernels_keep_no_float32_norms_and_three_wide_states_of_an_mlp() -> None:
    """A layer keeps 2 x 4 x 4096 for its norms, 2 x (4096 + 2 x 1024 + 2 x 4096) and 2 x 3 x 14,336 bytes a token."""
    assert replace(LLAMA_8B, kernels="liger").layer_bytes == 32_768 + 28_672 + 86_016


def test_a_token_keeps_the_width_of_the_experts_that_it_goes_through_and_a_copy_for_each() -> None:
    """Eight of 128 experts of width 768 in Qwen3-30B-A3B; two whole MLPs in Mixtral."""
    shape = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 704}
    for config, width, experts in (
        (Qwen3MoeConfig(**shape, num_experts=16, num_experts_per_tok=8, moe_intermediate_size=96), 768, 8),
        (MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2), 1408, 2),
    ):
        with torch.device("meta"):
            shell = AutoModelForCausalLM.from_config(config)
        found = shape_from(config, shell, ModelSettings(path="-"))
        assert (found.intermediate, found.experts) == (width, experts)
        alone = replace(found, experts=0)
        assert found.layer_bytes - alone.layer_bytes == 2 * 2 * experts * 256


def test_a_chunk_of_logits_is_no_longer_than_asked_for() -> None:
    short = TrainSettings(logp_chunk_tokens=512)
    memory = worker_memory(LLAMA_8B, short, DeepSpeedSettings(zero_stage=3), 4096, 8, gpu=True)
    assert memory.device["logits"] == 512 * 128_256 * 2


def test_a_pass_of_packed_rows_holds_a_prompt_once() -> None:
    """Padded, two pairs of 1,024 tokens on either side; packed, twice 500 + 524 + 524; or what the budget says."""
    pairs, budget = (
        TrainSettings.model_validate({"per_device_train_batch_size": size}) for size in (2, {"tokens": 9000})
    )
    assert (pass_tokens(pairs, 1024), pass_tokens(pairs, 1024, 1548)) == (4096, 3096)
    assert (pass_tokens(budget, 1024, 1548), pass_tokens(budget, 9000, 13_000)) == (9000, 13_000)


def test_with_lora_only_adapters_have_gradients_and_moments() -> None:
    """Per layer and rank 4: q and o 2 x 512, k and v 2 x 384, gate, up and down 3 x 960."""
    lora = LoraSettings(rank=4)
    shape = small_shape("bfloat16", lora=lora)
    assert shape.trained == 4 * 4 * (2 * 512 + 2 * 384 + 3 * 960)
    memory = worker_memory(shape, TrainSettings(), DeepSpeedSettings(zero_stage=0), 256, 1, gpu=True)
    assert memory.device["moments"] == 8 * shape.trained
    assert memory.device["weights"] == 2 * shape.parameters
    assert model_bytes(shape) == 2 * (shape.parameters - shape.trained)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), r".*\.(up|down)_proj"])
def test_adapters_are_counted_as_peft_adds_them(tiny: Path, targets: Any) -> None:
    lora = LoraSettings(rank=3, target_modules=targets)
    path = str(tiny / "model")
    model = load_model(ModelSettings(path=path, dtype="float32", lora=lora))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapters_of(load_model(ModelSettings(path=path, dtype="float32")), lora).weights == trained
    assert shape_of(ModelSettings(path=path, dtype="float32", lora=lora)).trained == trained


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_within_a_tenth_of_what_autograd_keeps(dtype: str) -> None:
    """The difference between two lengths, so that what does not grow with tokens does not count."""
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).to(getattr(torch, dtype)).train()
    pairs, short, long = 2, 128, 256
    kept = (kept_bytes(model, pairs, long) - kept_bytes(model, pairs, short)) / (2 * pairs * (long - short))
    shape = small_shape(dtype)
    logits = 4 * shape.vocabulary / 2  # float32 probabilities of the answers, which are half of the tokens
    assert shape.layers * shape.layer_bytes + shape.norm_bytes + logits == pytest.approx(kept, rel=0.1)


def kept_bytes(model: LlamaForCausalLM, pairs: int, length: int) -> int:
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = pair_logps(Scorer(model), full_batch(pairs, length))
    del held
    return sum(size for place, size in kept.items() if place not in weights)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("zero_stage", "dtype", "packed"),
    [
        *[(stage, dtype, False) for stage in (0, 1, 2, 3) for dtype in ("float32", "bfloat16")],
        *[(0, "float32", True), (2, "bfloat16", True), (3, "float32", True)],
    ],
)
def test_the_estimate_is_within_a_fifth_of_the_peak_of_all_tensors(
    small: Path, two: Gang, dtype: str, zero_stage: int, packed: bool
) -> None:
    """Two workers under real DeepSpeed, each with pairs of 64 tokens on either side: one at a time, and packed eight.

    The least of three measurements: what gloo's own threads free the profiler does not see, and such a block, which is
    there by chance, counts as if it lived on.
    """
    pairs = 8 if packed else 1
    train = TrainSettings(per_device_train_batch_size=pairs)
    settings = DeepSpeedSettings.model_validate({"zero_stage": zero_stage})
    tokens = pass_tokens(train, 64, 96 if packed else None)
    memory = worker_memory(small_shape(dtype), train, settings, tokens, 2, gpu=False)
    estimate = memory.device_bytes - CPU_RUNTIME
    peak = max(two(peak_bytes, str(small), dtype, zero_stage, pairs, 64, packed))
    for _ in range(2):
        if peak > 1.2 * estimate:
            peak = min(peak, max(two(peak_bytes, str(small), dtype, zero_stage, pairs, 64, packed)))
    assert estimate == pytest.approx(peak, rel=0.2)


TABLE: list[tuple[OptimizerName, int, str, dict[str, Any] | None]] = [
    ("muon", 3, "float32", None),
    ("adamw_8bit", 2, "bfloat16", None),
    ("adamw", 2, "bfloat16", {"rank": 8}),
    ("adamw", 2, "float32", {"rank": 8, "modules_to_save": ["lm_head"], "dropout": 0.1}),
    ("adamw_8bit", 2, "bfloat16", {"rank": 8, "quantize": True}),
]


@pytest.mark.parametrize(("optimizer", "zero_stage", "dtype", "lora"), TABLE)
def test_optimizers_and_adapters_are_estimated_within_15_percent(
    small: Path, two: Gang, optimizer: OptimizerName, zero_stage: int, dtype: str, lora: dict[str, Any] | None
) -> None:
    """With adapters eight pairs, so that activations count; the least of measurements, as above."""
    pairs = 8 if lora else 1
    train = TrainSettings.model_validate({"per_device_train_batch_size": pairs, "optimizer": {"name": optimizer}})
    settings = DeepSpeedSettings.model_validate({"zero_stage": zero_stage})
    shape = small_shape(dtype, lora=lora) if lora else small_shape(dtype)
    memory = worker_memory(shape, train, settings, pass_tokens(train, 64), 2, gpu=False)
    estimate = memory.device_bytes - CPU_RUNTIME
    peak = max(two(peak_bytes, str(small), dtype, zero_stage, pairs, 64, False, train, lora))
    if peak > 1.15 * estimate:
        peak = min(peak, max(two(peak_bytes, str(small), dtype, zero_stage, pairs, 64, False, train, lora)))
    assert estimate == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_checkpoint_takes_as_many_bytes_as_foreseen(
    small: Path, tiny: Path, two: Gang, tmp_path: Path, zero_stage: int
) -> None:
    """The tokenizer is the tiny world's; its ids are among those of the larger model."""
    shutil.copytree(tiny / "model", tmp_path / "model")
    shutil.copytree(small, tmp_path / "model", dirs_exist_ok=True)
    job = make_job(tiny, tmp_path / "run", objective=SimPO(), zero_stage=zero_stage, max_steps=1,
                   model={"path": str(tmp_path / "model")})  # fmt: skip
    two(train, job)
    written = sum(file.stat().st_size for file in (tmp_path / "run" / "checkpoints" / "step-1").iterdir())
    shape = small_shape("float32")
    assert checkpoint_bytes(shape, DeepSpeedSettings.model_validate({"zero_stage": zero_stage})) == pytest.approx(
        written, rel=0.1
    )
    exported = sum(file.stat().st_size for file in (tmp_path / "run" / "model").glob("*.safetensors"))
    assert model_bytes(shape) == pytest.approx(exported, rel=0.02)


def test_a_name_tells_how_many_weights_a_model_has_and_nothing_of_its_activations() -> None:
    names = ("princeton-nlp/Llama-3-Base-8B-SFT", "a/Qwen2.5-0.5b", "a/Mixtral-8x7B", "8b-labs/gpt2")
    shapes = [shape_by_name(ModelSettings(path=name)) for name in names]
    assert [shape and shape.parameters for shape in shapes] == [8_000_000_000, 500_000_000, None, None]
    (shape, *_) = shapes
    assert shape is not None
    need = worker_memory(shape, TrainSettings(), DeepSpeedSettings(zero_stage=0), 4096, 1, gpu=True)
    assert (need.device["weights"], need.device["moments"]) == (16_000_000_000, 64_000_000_000)
    assert "activations" not in need.device
