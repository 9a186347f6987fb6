"""One pass of a model through pairs or batches, by ranks that share its weights: each takes as many as the others.

A rank that has none left repeats one, whose numbers nobody gets: under ZeRO-3 all ranks run every forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.curriculum.shares import PassSize, deal
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.tables.mismatched import index_of, rows_of
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import TokenRows, build_batch
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.window_shares import chunk_counts, index_lengths
from mixdpo_ray.training.world import World

Batch = Mapping[str, Any]
Answer = Callable[[Batch], pa.Table]


def answers_of_rank(answer: Answer, batches: Sequence[Batch], world: World) -> Iterator[tuple[int, pa.Table]]:
    """Collective. What this rank's share of the batches comes to, each with its number among them.

    They are taken in turn: batches side by side are of like length, so that no rank waits long for another.
    """
    for first in range(0, len(batches), world.size):
        number = first + world.rank
        if number < len(batches):
            yield number, answer(batches[number])
        else:
            answer(batches[first])  # a filler


def reference_rows(
    policy: Policy,
    table: PreparedTable,
    split: str,
    positions: NDArray[np.int64],
    world: World,
    per_device: PassSize,
    chunk_tokens: int,
) -> Iterator[pa.Table]:
    """Collective. Rows of a reference table (pair_id and the two sums) of this rank's share of the pairs.

    The policy is run as it is. Dropout and gradients are left to `Policy.evaluating`. `positions`: ascending.
    """
    lengths, both = index_lengths(index_of(table, split), positions), np.zeros(len(positions), np.bool_)
    shares = deal(lengths, both, world.shares, per_device, packed=policy.rows == "packed")
    chunks = chunk_counts(both, lengths, shares, chunk_tokens)
    for micro, count in zip(shares[world.share], chunks, strict=True):
        mine = np.sort(positions[micro.rows])
        rows = rows_of(table, split, mine)
        batch = build_batch(
            TokenRows.of(rows, mine),
            mine,
            np.zeros(len(mine), np.bool_),
            None,
            weight=micro.weight,
            padding=policy.padding,
            device=world.torch_device,
            rows=policy.rows,
            row_slice=world.row_slice,
        )
        sums = policy.logps(batch, count).easy
        if micro.weight and world.counts:
            yield sums_table(rows, sums)


def sums_table(rows: pa.Table, sums: PairLogps) -> pa.Table:
    """Rows of a reference table, of the pairs that the sums are of."""
    return pa.table(
        {
            "pair_id": rows["pair_id"],
            "ref_chosen_logp": sums.chosen.float().cpu().numpy(),
            "ref_rejected_logp": sums.rejected.float().cpu().numpy(),
        }
    )
