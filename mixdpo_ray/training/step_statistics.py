"""What a StepObjective reads off a whole step before the first gradient.

A forward pass without gradient over all micro-batches, and one sum over ranks, give every rank the log-probs of every
easy pair; each then computes the same numbers, and each pair is handed its own. The price is that forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray.curriculum.shares import Share
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.mismatched import behind, mismatched_rows
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import PairBatch, References, TokenRows, build_batch
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.window_shares import SharedWindow
from mixdpo_ray.training.world import World

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class StatisticsContext:
    """What statistics need beside the policy and the step."""

    table: PreparedTable
    references: References | None
    world: World
    chunk_tokens: int
    seed: int


def with_statistics(
    policy: Policy,
    objective: StepObjective,
    shared: SharedWindow,
    batches: Sequence[PairBatch],
    context: StatisticsContext,
) -> tuple[Sequence[PairBatch], ObjectiveState]:
    """Collective. The micro-batches with statistics of their pairs, and the objective's state once they are trained."""
    window, share = shared.window, shared.shares[context.world.share]
    easy = np.flatnonzero(~window.hard)
    if not len(easy):
        return batches, policy.objective_state
    positions = window.positions[easy]
    numbers = [_easy_numbers(shared, micro.rows) for micro in share]
    with policy.evaluating():
        if objective.reads_mismatched:  # in place of the pairs' own sums, which nobody asks for
            sums, ratio = torch.zeros(2, len(easy)), _foreign_ratio(policy, positions, shared, context)
        else:
            sums, ratio = gathered(_own(policy, batches, shared), numbers, share, len(easy), context.world), None
    view = StepView(
        step_pairs(sums, context.table.index("train"), positions, context.references),
        state=policy.objective_state,
        progress=window.phase_step / window.phase_steps,
        seed=context.seed * 1_000_003 + window.step,
        mismatched_ratio=ratio,
    )
    statistics, state = objective.statistics(view)
    return [
        replace(batch, step=statistics_of(statistics, mine, context.world))
        for batch, mine in zip(batches, numbers, strict=True)
    ], state


def step_pairs(sums: Tensor, index: Index, positions: Numbers, references: References | None) -> PairLogps:
    """All pairs at once, in double precision. `sums` [2, pairs]: of the chosen and of the rejected answers."""
    columns = [index.chosen_scored, index.rejected_scored, index.margin]
    if references is not None:
        columns += [references.chosen, references.rejected]
    return PairLogps(*sums, *(torch.from_numpy(column[positions].astype(np.float64)) for column in columns))


def gathered(values: Sequence[Tensor], numbers: Sequence[Numbers], share: Share, count: int, world: World) -> Tensor:
    """Collective. [2, pairs] of each micro-batch -> [2, count] of all ranks; a filler adds nothing."""
    sums = torch.zeros(2, count, dtype=torch.float64, device=world.torch_device)
    for value, mine, micro in zip(values, numbers, share, strict=True):
        if micro.weight and world.counts:
            sums[:, torch.from_numpy(mine)] = value.double()
    if world.size > 1:
        dist.all_reduce(sums)
    return sums.cpu()


def statistics_of(statistics: Mapping[str, Tensor], numbers: Numbers, world: World) -> dict[str, Tensor]:
    rows = torch.from_numpy(numbers)
    return {name: values[rows].float().to(world.torch_device) for name, values in statistics.items()}


def _easy_numbers(shared: SharedWindow, rows: Numbers) -> Numbers:
    """The easy ones of these rows of the window, counted among its easy pairs."""
    hard = shared.window.hard
    numbers: Numbers = np.cumsum(~hard)[rows[~hard[rows]]] - 1
    return numbers


def _own(policy: Policy, batches: Sequence[PairBatch], shared: SharedWindow) -> list[Tensor]:
    pairs = [policy.logps(*one).easy for one in zip(batches, shared.totals.chunks, strict=True)]
    return [torch.stack([one.chosen, one.rejected]) for one in pairs]


def _foreign_ratio(policy: Policy, positions: Numbers, shared: SharedWindow, context: StatisticsContext) -> Tensor:
    """Policy minus reference of both foreign answers of every easy pair: [2 x pairs].

    A micro-batch without an easy pair runs one that belongs to another: under ZeRO-3 every rank runs equally often.
    """
    assert context.references is not None
    everyone = [[_easy_numbers(shared, micro.rows) for micro in share] for share in shared.shares]
    run = [[positions[mine if len(mine) else [0]] for mine in micros] for micros in everyone]
    mine = np.unique(np.concatenate(run[context.world.share]))
    tokens = TokenRows.of(mismatched_rows(context.table, mine), mine)
    index = context.table.index("train")
    answers = index.chosen_scored.astype(np.int64) + index.rejected_scored
    values = []
    for step, here in enumerate(run[context.world.share]):
        most = max(int(answers[behind(micros[step], len(index))].sum()) for micros in run)
        batch = build_batch(
            tokens, here, np.zeros(len(here), np.bool_), context.references.mismatched,
            weight=1.0, padding=policy.padding, device=context.world.torch_device, rows=policy.rows,
            row_slice=context.world.row_slice,
        )  # fmt: skip
        pairs = policy.logps(batch, -(-most // context.chunk_tokens)).easy
        values.append(torch.stack([pairs.chosen_ratio, pairs.rejected_ratio]))
    ours = everyone[context.world.share]
    kept = [value[:, : len(numbers)] for value, numbers in zip(values, ours, strict=True)]
    return gathered(kept, ours, shared.shares[context.world.share], len(positions), context.world).flatten()
