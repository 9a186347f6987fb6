"""What is checked once, before the first step: that numbers mean what everybody takes them for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.errors import ModelError, PreparedTableError
from mixdpo_ray.objectives.step_objective import reads_mismatched
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.attention import padding_refused
from mixdpo_ray.training.batch import PairBatch, References, TokenRows, build_batch
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.row_slices import WHOLE
from mixdpo_ray.training.settings import ModelSettings, TrainSettings
from mixdpo_ray.training.window_shares import index_lengths
from mixdpo_ray.training.world import World

CHECKED_ROWS = 4


def references_for(job: TrainingJob, table: PreparedTable, plan: Plan) -> References | None:
    """The references of the training split; every pair that the objective will compare must be covered."""
    if job.reference is None:
        if job.needs_reference and job.compared(plan.hard).any():
            raise PreparedTableError(
                f"{type(job.objective).__name__} compares with a reference, and the job names no reference table"
            )
        return None
    index = table.index("train")
    foreign = reads_mismatched(job.objective)
    references = References.of(job.reference, index, mismatched=foreign, tokens=job.needs_tokens)
    unknown = np.isnan(references.chosen) | np.isnan(references.rejected)
    if references.mismatched is not None:
        unknown |= np.isnan(references.mismatched.chosen) | np.isnan(references.mismatched.rejected)
    if references.tokens is not None:
        unknown |= np.diff(references.tokens[0].offsets) != index.chosen_scored
    absent = np.flatnonzero(job.reference_positions(plan) & unknown)
    if len(absent):
        raise PreparedTableError(
            f"{job.reference} lacks {len(absent)} pairs, the first {index.pair_id[absent[0]]}: repeat "
            "jobs/train.py, which adds what is missing"
        )
    return references


def padding_warning(why: str | None, model: ModelSettings, train: TrainSettings) -> str | None:
    """A warning that rows are padded where they could be packed; refused where the recipe counts on packed ones."""
    if why is None:
        return None
    if model.packing is True:
        raise padding_refused(why)
    if isinstance(train.per_device_train_batch_size, TokenBudget):
        raise ModelError(
            f"train.per_device_train_batch_size counts tokens, and rows are padded, for {why}: give a number of pairs"
        )
    return f"rows are padded, which takes longer, for {why}; model.packing off leaves this line out"


def check_scoring(
    policy: Policy, job: TrainingJob, table: PreparedTable, plan: Plan, references: References | None, world: World
) -> None:
    """Collective, before step 0. The log-probs are the model's own, and the stored reference is this very policy."""
    compared = job.reference_positions(plan)
    positions = np.flatnonzero(compared)[:CHECKED_ROWS]
    if not len(positions):
        positions = np.arange(min(CHECKED_ROWS, len(plan.hard)))
    batch = _batch(policy, table, positions, references, world, policy.rows)
    with policy.evaluating():
        _check_exactness(policy, job, table, positions, world)
        if references is not None and _starts_as_its_reference(job.model) and compared[positions].all():
            _check_reference(policy, job, batch)


def _check_exactness(
    policy: Policy, job: TrainingJob, table: PreparedTable, positions: NDArray[np.int64], world: World
) -> None:
    """A packed row is compared with padded ones, and holds the table's two longest pairs, one of them taken as hard.

    Where ranks share a row they are the shortest instead: nobody shares the plain pass of padded ones.
    """
    checked, hard = positions, np.zeros(len(positions), np.bool_)
    if policy.rows == "packed":
        index = table.index("train")
        lengths = index_lengths(index, np.arange(len(index)))
        order = np.argsort(lengths.prompt + lengths.chosen + lengths.rejected, kind="stable")
        if world.sequence_parallel > 1:
            checked, taken_as_hard = np.sort(order[:CHECKED_ROWS]), order[0]
        else:
            checked, taken_as_hard = np.union1d(positions[: CHECKED_ROWS - 2], order[-2:]), order[-2]
        hard = checked == taken_as_hard
    padded: RowKind = "together" if policy.rows == "packed" else policy.rows
    batch, plain = (_batch(policy, table, checked, None, world, rows, hard) for rows in (policy.rows, padded))
    used = {"model.kernels none": job.model.kernels != "none", "model.packing off": policy.rows == "packed"}
    suspects = [name for name, is_used in used.items() if is_used]
    policy.check_exactness(batch, plain, _chunks(batch, job), getattr(torch, job.model.dtype), suspects)


def _starts_as_its_reference(model: ModelSettings) -> bool:
    return model.reference is None and (model.lora is None or model.lora.reference != "base")


def _check_reference(policy: Policy, job: TrainingJob, batch: PairBatch) -> None:
    pairs = policy.logps(batch, _chunks(batch, job)).easy
    assert pairs.ref_rejected is not None
    gaps = torch.stack(
        [pairs.chosen_ratio / pairs.chosen_length, (pairs.rejected - pairs.ref_rejected) / pairs.rejected_length]
    )
    gap = float(gaps.abs().max())
    if not gap <= job.model.reference_tolerance:
        raise PreparedTableError(
            f"{job.reference}: stored log-probs differ by {gap:.3g} per token from those of {job.model.path} (allowed: "
            f"model.reference_tolerance {job.model.reference_tolerance:g}); remove the folder and repeat"
        )


def _chunks(batch: PairBatch, job: TrainingJob) -> int:
    return -(-int(batch.lengths.sum()) // job.train.logp_chunk_tokens)  # the same where ranks share a row


def _batch(
    policy: Policy,
    table: PreparedTable,
    positions: NDArray[np.int64],
    references: References | None,
    world: World,
    rows: RowKind,
    hard: NDArray[np.bool_] | None = None,
) -> PairBatch:
    return build_batch(
        TokenRows.of(table.read("train", positions), positions),
        positions,
        np.zeros(len(positions), np.bool_) if hard is None else hard,
        references,
        weight=1.0,
        padding=policy.padding,
        device=world.torch_device,
        rows=rows,
        row_slice=world.row_slice if rows == "packed" else WHOLE,
    )
