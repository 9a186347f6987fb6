"""What stops a run before it moves a weight, and what is checked before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.errors import CurriculumError, NonFiniteError, PreparedTableError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.optimizer import make_optimizer
from mixdpo_ray.training.settings import CheckpointSettings, OptimizerSettings
from mixdpo_ray.training.windows import read_windows
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import steps, train
from tests.training.tiny import make_job


class Poisoned(DPO):
    """One gradient of one worker is not a number, in the step whose margins are small."""

    def losses(self, pairs: PairLogps) -> Tensor:
        losses = super().losses(pairs)
        if losses.requires_grad and dist.get_rank() == 0 and len(losses) and pairs.margin.max() < 1.2:
            losses.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
        return losses


class Infinite(DPO):
    def losses(self, pairs: PairLogps) -> Tensor:
        losses = super().losses(pairs)
        return losses / (pairs.margin > 1.2) if losses.requires_grad else losses


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "float32"), (2, "float32"), (3, "float32"), (2, "bfloat16")])
def test_a_gradient_that_is_not_a_number_stops_the_run_before_the_update(
    tiny: Path, two: Gang, tmp_path: Path, zero_stage: int, dtype: str
) -> None:
    job = make_job(
        tiny, tmp_path, objective=Poisoned(), zero_stage=zero_stage, checkpoints=CheckpointSettings(every_steps=1),
        model={"dtype": dtype, "reference_tolerance": 9.0},
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match=r"^step 2: the gradient is not finite; the step's 6 pairs begin with a0"):
        two(train, job)
    assert [line["step"] for line in steps(tmp_path)] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-1", "step-2"]


def test_a_loss_that_is_infinite_stops_every_worker(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, objective=Infinite())
    with pytest.raises(NonFiniteError, match="step 1: the loss is not finite"):
        two(train, job)


def weights_after_poison(world: World, job: TrainingJob) -> float:
    """How far a poisoned step moved any weight, through the loop's own pieces."""
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    before = [parameter.detach().clone() for parameter in policy.scorer.parameters()]
    ids = torch.tensor([[3, 4, 5]])
    loss = policy.scorer.model(input_ids=ids).logits.float().sum()
    policy.backward(loss * (float("nan") if world.leads else 1.0))
    with pytest.raises(NonFiniteError):
        policy.update()
    return max(float((now - then).abs().max()) for now, then in zip(policy.scorer.parameters(), before, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_a_poisoned_update_moves_no_weight(tiny: Path, two: Gang, zero_stage: int, dtype: str) -> None:
    job = make_job(tiny, tiny / "unused", zero_stage=zero_stage, model={"dtype": dtype})
    assert two(weights_after_poison, job) == [0, 0]


def reset_equals_new(world: World, job: TrainingJob) -> bool:
    """Train two steps, zero the optimizer, and compare its state with that of a new one after the same update."""
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    group = policy.optimizer.param_groups[0]
    for value in (0.3, -0.7):
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, value)
        policy._guard.clips = True
        policy.optimizer.step()
    policy.reset_optimizer()
    twin = torch.nn.Module()
    twin.weights = torch.nn.ParameterList([parameter.detach().clone() for parameter in group["params"]])
    new = make_optimizer(twin, job.train.optimizer)
    for optimizer in (policy.optimizer, new):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()
    pairs = zip(group["params"], new.param_groups[0]["params"], strict=True)
    return all(
        torch.equal(mine, theirs) and all(
            torch.equal(policy.optimizer.state[mine][name], value) for name, value in new.state[theirs].items()
        )
        for mine, theirs in pairs
    )  # fmt: skip


def test_a_reset_optimizer_is_a_new_optimizer(tiny: Path, two: Gang) -> None:
    unclipped = OptimizerSettings(learning_rate=1e-3, max_grad_norm=0)
    assert all(two(reset_equals_new, make_job(tiny, tiny / "unused", zero_stage=2, optimizer=unclipped)))


def scrambled(world: World, job: TrainingJob) -> None:
    def windows(
        table: PreparedTable, plan: Plan, world: World, kind: RowKind, first_step: int, last_step: int
    ) -> Iterator[pa.Table]:
        for rows in read_windows(table, plan, world, kind, first_step, last_step):
            yield rows.take(list(reversed(range(len(rows)))))

    run_training(job, world, windows)


def test_rows_in_another_order_than_the_plans_are_an_error(tiny: Path, two: Gang, tmp_path: Path) -> None:
    with pytest.raises(CurriculumError, match=r"step 0: pair a0.* arrived where the plan has a0"):
        two(scrambled, make_job(tiny, tmp_path))


def test_references_of_another_model_are_noticed_before_the_first_step(tiny: Path, two: Gang, tmp_path: Path) -> None:
    table = PreparedTable.open(str(tiny / "table"))
    store = ReferenceTable.create(str(tmp_path / "other"), "other")
    for split in ("train", "eval"):
        ids = table.index(split).pair_id
        floats = pa.array([-20.0] * len(ids), pa.float32())
        store.append(pa.table({"pair_id": ids, "ref_chosen_logp": floats, "ref_rejected_logp": floats}))
    job = make_job(tiny, tmp_path / "run").with_reference(str(tmp_path / "other"))
    with pytest.raises(PreparedTableError, match="stored log-probs differ by"):
        two(train, job)


def test_an_easy_pair_without_a_reference_is_named(tiny: Path, two: Gang, tmp_path: Path) -> None:
    """Threshold 0 makes the ties easy, and their references were never computed."""
    job = make_job(tiny, tmp_path, curriculum={"threshold": {"value": 0.0}})
    with pytest.raises(PreparedTableError, match=r"lacks 10 pairs, the first a0+16"):
        two(train, job)
