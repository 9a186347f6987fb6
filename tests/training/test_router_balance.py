"""The routers' auxiliary loss: transformers' own formula over a whole window, for every split of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from mixdpo_ray.curriculum.shares import PassSize
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.router_balance import router_balance
from tests.training.families import random_model
from tests.training.gang import Gang
from tests.training.test_gradients import MIXED, Weights, difference, gradient, naive_gradient, plain_job

COEFFICIENT = 0.5  # large enough that its gradient counts among the others
EXPERTS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8,
        "router_aux_loss_coef": COEFFICIENT,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": COEFFICIENT},
}  # fmt: skip


@pytest.fixture(scope="module", params=EXPERTS)
def experts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts") / str(request.param)
    random_model(request.param, **EXPERTS[request.param]).save_pretrained(folder)
    return folder


def job_of(tiny: Path, experts: Path, per_device: PassSize, **changes: Any) -> TrainingJob:
    model = {"path": str(experts), **changes.pop("model", {})}
    return plain_job(tiny, per_device, curriculum={"mode": "router", "sft_weight": 0.7}, model=model, **changes)


def truth_of(job: TrainingJob, step: int) -> tuple[float, float, Weights]:
    """The loss, the routers' part of it without its coefficient, and the gradient."""
    loss, weights = naive_gradient(job, step)
    table = PreparedTable.open(job.prepared)
    window = job.plan(table).window(step)
    rows = table.read("train", window.positions).to_pylist()
    answers = [
        row["prompt_ids"] + row[f"{side}_ids"]
        for row, hard in zip(rows, window.hard, strict=True)
        for side in (("chosen",) if hard else ("chosen", "rejected"))
    ]
    model = AutoModelForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    routed = [model(torch.tensor([ids]), output_router_logits=True).router_logits for ids in answers]
    layers = tuple(torch.cat([one[layer] for one in routed]) for layer in range(len(routed[0])))
    balance = load_balancing_loss_func(layers, layers[0].shape[-1], 2)
    assert isinstance(balance, torch.Tensor)
    torch.autograd.backward(COEFFICIENT * balance)
    value = float(balance.detach())
    both = {
        name: weights.get(name, torch.zeros(())) + p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    return loss + COEFFICIENT * value, value, {**weights, **both}


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_every_split_of_a_window_gives_the_gradient_of_the_whole_windows_balance(
    tiny: Path, experts: Path, one: Gang, two: Gang, four: Gang, packing: bool
) -> None:
    """Prompts of padded rows run twice and those of packed rows once: they count the same."""
    model = {"packing": packing}
    loss, balance, truth = truth_of(job_of(tiny, experts, 1), MIXED)
    for gang, per_device in ((one, 8), (one, 3), (two, 2), (four, 2)):
        for sums, _, found in gang(gradient, job_of(tiny, experts, per_device, zero_stage=0, model=model), MIXED):
            assert sums["loss"] == pytest.approx(loss, rel=1e-5)
            assert sums["loss/router"] == pytest.approx(balance, rel=1e-5)
            assert difference(found, truth) < 1e-5


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_it_holds_in_zero_stages_with_a_filler_and_recomputed_layers(
    tiny: Path, experts: Path, two: Gang, four: Gang, zero_stage: int
) -> None:
    """On two ranks, and on four that share rows two by two: each then routes its slice."""
    changes: dict[str, Any] = {"global_batch_size": 7, "logp_chunk_tokens": 5, "gradient_checkpointing": True}
    loss, balance, truth = truth_of(job_of(tiny, experts, 1, **changes), 3)
    for gang, shared in ((two, 1), (four, 2)):
        job = job_of(
            tiny, experts, 2, zero_stage=zero_stage, model={"packing": True}, sequence_parallel=shared, **changes
        )
        sums, _, found = gang(gradient, job, 3)[0]
        assert (sums["loss"], sums["loss/router"]) == pytest.approx((loss, balance), rel=1e-5)
        assert difference(found, truth) < 1e-5


def test_a_model_without_routers_or_without_their_coefficient_has_no_balance_to_keep() -> None:
    assert router_balance(random_model("llama")) is None
    assert router_balance(random_model("mixtral", **{**EXPERTS["mixtral"], "router_aux_loss_coef": 0.0})) is None
    assert router_balance(random_model("mixtral", **EXPERTS["mixtral"])) is not None
