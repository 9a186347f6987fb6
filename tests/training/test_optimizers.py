"""Optimizers beside AdamW: continued bit for bit, reset to nothing, guarded, and the same however weights are cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.errors import CheckpointError, NonFiniteError
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.training.checkpoint_export import export_checkpoint
from mixdpo_ray.training.engine import Policy, make_policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.settings import CheckpointSettings, OptimizerName, OptimizerSettings, TrainSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import steps, train, train_until, unlike, weights
from tests.training.test_stops import Poisoned
from tests.training.tiny import VOCABULARY, make_job

BESIDE: tuple[OptimizerName, ...] = ("adamw_8bit", "muon")


@pytest.fixture(scope="module")
def wider(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose pieces are large enough for moments in 8 bits: from 4,096 weights on."""
    folder = tmp_path_factory.mktemp("wider")
    shutil.copytree(tiny / "model", folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def job_of(tiny: Path, wider: str, run: Path, name: OptimizerName, zero_stage: int, **changes: Any) -> TrainingJob:
    optimizer = {"name": name, "learning_rate": 1e-3, **({"muon_learning_rate": 2e-3} if name == "muon" else {})}
    settings: dict[str, Any] = {"checkpoints": CheckpointSettings(every_steps=2, keep_last=9), **changes}
    model = {"path": wider, **settings.pop("model", {})}
    objective = settings.pop("objective", SimPO())
    return make_job(tiny, run, objective=objective, zero_stage=zero_stage, model=model, optimizer=optimizer, **settings)


@pytest.mark.parametrize(("name", "zero_stage"), [("adamw_8bit", 2), ("adamw_8bit", 3), ("muon", 0), ("muon", 3)])
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(
    tiny: Path, wider: str, two: Gang, tmp_path: Path, name: OptimizerName, zero_stage: int
) -> None:
    """Killed in the second stage, behind the reset; the moments of 8 bits are really in 8 bits."""
    whole, killed = (job_of(tiny, wider, tmp_path / run, name, zero_stage) for run in ("whole", "killed"))
    two(train, whole)
    two(train_until, killed, 4)
    assert (tmp_path / "killed" / "checkpoints" / "step-2" / "COMMITTED").exists()
    two(train, killed)
    assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "whole")) == 0
    kept = [(line["step"], line["loss"], line["grad_norm"]) for line in steps(tmp_path / "killed")]
    assert kept == [(line["step"], line["loss"], line["grad_norm"]) for line in steps(tmp_path / "whole")]
    export_checkpoint(str(tmp_path / "whole" / "checkpoints" / "step-5"), whole.model, tmp_path / "again")
    (tmp_path / "again" / "model").mkdir()
    shutil.move(tmp_path / "again" / "model.safetensors", tmp_path / "again" / "model")
    assert unlike(weights(tmp_path / "again"), weights(tmp_path / "whole")) == 0


def state_names(world: World, job: TrainingJob) -> set[tuple[str, str]]:
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    move(policy, 0.3)
    states = policy.optimizer.state.values()
    return {(key, str(value.dtype)) for state in states for key, value in state.items() if torch.is_tensor(value)}


def move(policy: Policy, value: float) -> None:
    for group in policy.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.linspace(-value, 2 * value, parameter.numel()).view_as(parameter)
    policy._guard.clips = True
    policy.optimizer.step()


def test_moments_are_kept_in_8_bits_and_muon_keeps_momentum_alone(
    tiny: Path, wider: str, two: Gang, tmp_path: Path
) -> None:
    eight, muon = (two(state_names, job_of(tiny, wider, tmp_path, name, 2))[0] for name in BESIDE)
    assert {("state1", "torch.uint8"), ("state2", "torch.uint8")} <= eight
    assert {key for key, _ in muon} == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}


def reset_is_new(world: World, job: TrainingJob) -> bool:
    """Two policies with the same weights, one of which has forgotten two steps: both move alike."""
    used, new = (make_policy(job.model, job.train, job.deepspeed, world, padding=0) for _ in range(2))
    for value in (0.3, -0.7):
        move(used, value)
    used.reset_optimizer()
    pairs = [
        pair
        for mine, theirs in zip(used.optimizer.param_groups, new.optimizer.param_groups, strict=True)
        for pair in zip(mine["params"], theirs["params"], strict=True)
    ]
    for mine, theirs in pairs:
        theirs.data.copy_(mine.data)
    for policy in (used, new):
        move(policy, 0.1)
    return all(
        torch.equal(mine, theirs)
        and all(torch.equal(torch.as_tensor(used.optimizer.state[mine][key]), torch.as_tensor(value))
                for key, value in new.optimizer.state[theirs].items())
        for mine, theirs in pairs
    )  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_a_reset_optimizer_is_a_new_one(tiny: Path, wider: str, two: Gang, tmp_path: Path, name: OptimizerName) -> None:
    assert all(two(reset_is_new, job_of(tiny, wider, tmp_path, name, 2)))


def test_muon_moves_alike_however_weights_are_cut(tiny: Path, wider: str, two: Gang, tmp_path: Path) -> None:
    """Whole on each rank; cut between two ranks where one piece ends; every matrix cut."""
    ends = {}
    for zero_stage in range(4):
        two(train, job_of(tiny, wider, tmp_path / str(zero_stage), "muon", zero_stage, max_steps=3))
        ends[zero_stage] = weights(tmp_path / str(zero_stage))
    assert max(unlike(ends[stage], ends[0]) for stage in (1, 2, 3)) < 1e-5


def singular_values(world: World, job: TrainingJob) -> list[list[float]]:
    """Of what one step did to each matrix, as shares of 0.2 x rate x the root of its longer side."""
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    torch.manual_seed(0)
    matrices = policy.optimizer.param_groups[0]["params"]
    before = [matrix.detach().clone() for matrix in matrices]
    for group in policy.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn_like(parameter)
    policy.optimizer.step()
    rate = policy.optimizer.param_groups[0]["lr"]
    moved = [
        (old - new.detach()) / (0.2 * rate * max(new.shape) ** 0.5) for old, new in zip(before, matrices, strict=True)
    ]
    return [torch.linalg.svdvals(step).tolist() for step in moved]


def test_a_step_of_muon_is_orthogonal_and_as_large_as_adamws(tiny: Path, wider: str, one: Gang, tmp_path: Path) -> None:
    """Seven matrices of the layer; embeddings, the output layer and norms are AdamW's."""
    (found,) = one(singular_values, job_of(tiny, wider, tmp_path, "muon", 0))
    assert len(found) == 7
    assert all(sorted(values)[len(values) // 2] > 0.6 and max(values) < 1.4 for values in found)  # small ones lag


@pytest.mark.parametrize("name", BESIDE)
def test_a_gradient_that_is_not_a_number_moves_nothing(
    tiny: Path, two: Gang, tmp_path: Path, name: OptimizerName
) -> None:
    job = job_of(tiny, str(tiny / "model"), tmp_path, name, 2, objective=Poisoned())
    with pytest.raises(NonFiniteError, match=r"^step 2: the gradient is not finite"):
        two(train, job)
    assert [line["step"] for line in steps(tmp_path)] == [0, 1]


@pytest.mark.parametrize("name", BESIDE)
def test_another_number_of_workers_is_refused_by_name(
    tiny: Path, wider: str, two: Gang, one: Gang, tmp_path: Path, name: OptimizerName
) -> None:
    job = job_of(tiny, wider, tmp_path, name, 2)
    two(train_until, job, 4)
    with pytest.raises(CheckpointError, match=f"2 workers and there are 1: what train.optimizer.name {name} keeps"):
        one(train, job)


def test_settings_of_muon_are_refused_where_nothing_reads_them() -> None:
    with pytest.raises(ValidationError, match="muon_momentum would never be read by adamw: leave it out"):
        OptimizerSettings(muon_momentum=0.9)


def test_adamw_is_recorded_as_earlier_versions_recorded_it() -> None:
    before = {"learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}
    identity = TrainSettings().identity()
    assert set(identity["optimizer"]) == before
    assert json.loads(json.dumps(identity))["max_grad_norm"] == 1.0
