"""One window's gradient, for every split into ranks and micro-steps, against a naive sum over pairs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixdpo_ray.curriculum.shares import PassSize, TokenBudget
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training import length_groups
from mixdpo_ray.training.batch import TokenRows, build_batch
from mixdpo_ray.training.checks_before_training import references_for
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.export import consolidated
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.process_group import join_group
from mixdpo_ray.training.settings import OptimizerSettings
from mixdpo_ray.training.step import LossWeights, train_step
from mixdpo_ray.training.window_shares import share_window
from mixdpo_ray.training.windows import share_positions
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import make_job

Weights = dict[str, Tensor]

# An epsilon far above every gradient makes AdamW's first step exactly proportional to the gradient, here equal to it.
PLAIN_STEP = OptimizerSettings(learning_rate=1e6, adam_epsilon=1e6, max_grad_norm=0)
MIXED = 2  # the window of positions 16 to 23 holds six easy pairs and two hard ones


def gradient_in_groups(world: World, job: TrainingJob, step: int) -> tuple[dict[str, float], float, Weights]:
    """Where a pass costs nothing, sequences of every length have a group of their own."""
    usual, length_groups.PASS = length_groups.PASS, 1
    try:
        return gradient(world, job, step)
    finally:
        length_groups.PASS = usual


def gradient(world: World, job: TrainingJob, step: int) -> tuple[dict[str, float], float, Weights]:
    """Sums, norm and gradient of a step, through DeepSpeed and one real update."""
    world = join_group(world, job.deepspeed.sequence_parallel)
    table = PreparedTable.open(job.prepared)
    plan = job.plan(table)
    window = plan.window(step)
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    before = {name: tensor.clone() for name, tensor in consolidated(policy).items()}
    per_device, chunk_tokens = job.train.per_device_train_batch_size, job.train.logp_chunk_tokens
    shared = share_window(window, table.index("train"), world.shares, per_device, chunk_tokens, policy.rows)
    share = shared.shares[world.share]
    positions = share_positions(window, share)
    tokens = TokenRows.of(table.read("train", positions), positions)
    references = references_for(job, table, plan)
    batches = [
        build_batch(
            tokens, window.positions[micro.rows], window.hard[micro.rows], references,
            weight=micro.weight, padding=0, device=torch.device("cpu"), rows=policy.rows,
            alone=window.alone[micro.rows], row_slice=world.row_slice,
        )
        for micro in share
    ]  # fmt: skip
    weights = LossWeights(shared.totals, window.stage, job.curriculum.sft_normalisation, job.curriculum.sft_weight)
    sums, norm = train_step(policy, job.objective, batches, weights, world, job.hard_objective)
    after = consolidated(policy)
    return sums, norm, {name: before[name] - after[name] for name in after}


def naive_gradient(job: TrainingJob, step: int) -> tuple[float, Weights]:
    """(1/N) [sum of easy losses + sft_weight * n_hard * SFT mean], pair by pair, with the model's own full forward."""
    from mixdpo_ray.objectives.logps import PairLogps

    table = PreparedTable.open(job.prepared)
    plan = job.plan(table)
    window, references = plan.window(step), references_for(job, table, plan)
    model = AutoModelForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    rows = table.read("train", window.positions).to_pylist()

    def logp(row: dict[str, Any], side: str) -> Tensor:
        prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total: Tensor = logits.log_softmax(-1)[range(len(answer)), answer].sum()
        return total

    easy = torch.zeros(())
    hard_rows = [row for row, is_hard in zip(rows, window.hard, strict=True) if is_hard]
    for row, position, is_hard in zip(rows, window.positions, window.hard, strict=True):
        if not is_hard:
            chosen, rejected = (torch.tensor([float(len(row[f"{side}_ids"]))]) for side in ("chosen", "rejected"))
            pair = PairLogps(
                logp(row, "chosen")[None], logp(row, "rejected")[None], chosen, rejected, torch.zeros(1),
                None if references is None else torch.tensor([references.chosen[position]]),
                None if references is None else torch.tensor([references.rejected[position]]),
            )  # fmt: skip
            easy = easy + job.objective.losses(pair).sum()
    sft = torch.zeros(())
    if hard_rows:
        logps = torch.stack([logp(row, "chosen") for row in hard_rows])
        tokens = torch.tensor([len(row["chosen_ids"]) for row in hard_rows])
        sft = {
            "token_mean": -logps.sum() / tokens.sum(),
            "example_mean": -(logps / tokens).mean(),
            "example_sum": -logps.mean(),
        }[job.curriculum.sft_normalisation]
    pairs, weight = len(rows), job.curriculum.sft_weight
    loss = weight * sft if window.stage == "hard" else (easy + weight * len(hard_rows) * sft) / pairs
    torch.autograd.backward(loss)
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def difference(mine: Weights, truth: Weights) -> float:
    """Relative, over all weights; tied names count once."""
    squares = sum(float((mine[name] - truth[name]).square().sum()) for name in truth)
    return math.sqrt(squares / sum(float(tensor.square().sum()) for tensor in truth.values()))


def plain_job(tiny: Path, per_device: PassSize, **changes: Any) -> TrainingJob:
    return make_job(tiny, tiny / "unused", optimizer=PLAIN_STEP, per_device_train_batch_size=per_device, **changes)


@pytest.mark.parametrize("norm", ["token_mean", "example_mean", "example_sum"])
@pytest.mark.parametrize("step", [MIXED, 3, 0], ids=["mixed", "hard", "easy"])
def test_every_split_of_a_window_gives_the_gradient_of_the_naive_sum(
    tiny: Path, one: Gang, two: Gang, four: Gang, norm: str, step: int
) -> None:
    """1 rank x 1, 4 and 8 micro-steps, 2 x 2 and 4 x 1; unequal lengths; two hard pairs cannot reach all four ranks."""
    curriculum = {"mode": "router", "sft_norm": norm, "sft_weight": 0.7}
    loss, truth = naive_gradient(plain_job(tiny, 1, curriculum=curriculum), step)
    for gang, per_device in ((one, 8), (one, 2), (one, 1), (two, 2), (four, 2)):
        job = plain_job(tiny, per_device, curriculum=curriculum, zero_stage=0)
        for sums, gradient_norm, found in gang(gradient, job, step):
            assert sums["loss"] == pytest.approx(loss, rel=1e-6)
            assert gradient_norm == pytest.approx(float(torch.nn.utils.get_total_norm(truth.values())), rel=1e-5)
            assert difference(found, truth) < 1e-5


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_every_zero_stage_gives_the_same_gradient(tiny: Path, two: Gang, zero_stage: int) -> None:
    """Three micro-steps a rank, the last one a filler on one of them, and vocabulary logits in several chunks."""
    curriculum = {"mode": "router", "sft_weight": 0.7}
    changes: dict[str, Any] = {"curriculum": curriculum, "global_batch_size": 7, "logp_chunk_tokens": 5}
    _, truth = naive_gradient(plain_job(tiny, 1, **changes), 3)
    found = two(gradient, plain_job(tiny, 2, zero_stage=zero_stage, **changes), 3)[0]
    assert difference(found[2], truth) < 1e-5


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_passes_in_groups_of_one_length_change_nothing(tiny: Path, two: Gang, zero_stage: int) -> None:
    """Ranks then differ in their number of passes; under ZeRO-3 there is one group whatever it costs."""
    changes: dict[str, Any] = {"curriculum": {"mode": "router"}, "gradient_checkpointing": zero_stage == 1}
    _, truth = naive_gradient(plain_job(tiny, 1, **changes), MIXED)
    found = two(gradient_in_groups, plain_job(tiny, 2, zero_stage=zero_stage, **changes), MIXED)[0]
    assert difference(found[2], truth) < 1e-5


@pytest.mark.parametrize("step", [MIXED, 3, 0], ids=["mixed", "hard", "easy"])
def test_packed_rows_change_nothing_in_any_split(tiny: Path, one: Gang, two: Gang, four: Gang, step: int) -> None:
    changes: dict[str, Any] = {"curriculum": {"mode": "router", "sft_weight": 0.7}, "model": {"packing": True}}
    loss, truth = naive_gradient(plain_job(tiny, 1, **changes), step)
    splits: list[tuple[Gang, PassSize]] = [(one, 8), (one, 3), (two, 2), (four, 2)]
    budgets: list[tuple[Gang, PassSize]] = [(one, TokenBudget(tokens=60)), (two, TokenBudget(tokens=20))]
    for gang, per_device in (*splits, *budgets):
        for sums, _, found in gang(gradient, plain_job(tiny, per_device, zero_stage=0, **changes), step):
            assert sums["loss"] == pytest.approx(loss, rel=1e-6)
            assert difference(found, truth) < 1e-5


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_packed_rows_change_nothing_in_any_zero_stage(tiny: Path, two: Gang, zero_stage: int) -> None:
    """A filler on one rank, several chunks, and layers that are run again in the backward pass.

    Under a budget one pair is longer than it, and one rank needs fewer passes than the other.
    """
    changes: dict[str, Any] = {
        "curriculum": {"mode": "router"}, "global_batch_size": 7, "logp_chunk_tokens": 5,
        "gradient_checkpointing": True, "model": {"packing": True},
    }  # fmt: skip
    _, truth = naive_gradient(plain_job(tiny, 1, **changes), 3)
    sizes: list[PassSize] = [2, TokenBudget(tokens=18)]
    for size in sizes:
        found = two(gradient, plain_job(tiny, size, zero_stage=zero_stage, **changes), 3)[0]
        assert difference(found[2], truth) < 1e-5


@pytest.mark.parametrize("objective", [SimPO(), DPO(beta=1.0)])
def test_gradient_checkpointing_changes_nothing(tiny: Path, two: Gang, objective: Objective) -> None:
    changes = {"objective": objective, "curriculum": {"mode": "router"}}
    _, truth = naive_gradient(plain_job(tiny, 1, **changes), MIXED)
    found = two(gradient, plain_job(tiny, 2, gradient_checkpointing=True, **changes), MIXED)[0]
    assert difference(found[2], truth) < 1e-5
