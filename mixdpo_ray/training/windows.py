"""Which rows a rank needs for each step, where they come from, and the check that they are the right ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.curriculum.plan import Plan, Window
from mixdpo_ray.curriculum.shares import Share, rows_of_rank
from mixdpo_ray.errors import CurriculumError
from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import read_trained, trained_index
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.window_shares import index_lengths
from mixdpo_ray.training.world import World


class WindowSource(Protocol):
    """Yields, for each step of [first_step, last_step), the rows at this rank's `rank_positions`, in that order."""

    def __call__(
        self, table: PreparedTable, plan: Plan, world: World, kind: RowKind, first_step: int, last_step: int
    ) -> Iterator[pa.Table]: ...


def read_windows(
    table: PreparedTable, plan: Plan, world: World, kind: RowKind, first_step: int, last_step: int
) -> Iterator[pa.Table]:
    """Plain reading, step by step."""
    for step in range(first_step, last_step):
        yield read_trained(table, rank_positions(table, plan, world, kind, step))


def rank_positions(table: PreparedTable, plan: Plan, world: World, kind: RowKind, step: int) -> NDArray[np.int64]:
    """Positions of the rows that a rank runs in a step, each once, ascending."""
    window = plan.window(step)
    lengths = index_lengths(trained_index(table), window.positions)
    return window.positions[rows_of_rank(lengths, window.alone, world.shares, world.share, packed=kind == "packed")]


def share_positions(window: Window, share: Share) -> NDArray[np.int64]:
    positions: NDArray[np.int64] = window.positions[np.unique(np.concatenate([micro.rows for micro in share]))]
    return positions


def count_rows(plan: Plan, steps: int) -> dict[str, int]:
    """How often pairs are trained in so many steps, and rows of data.sft where there are any."""
    windows = [plan.window(step).positions for step in range(steps)]
    pairs = sum(int(np.count_nonzero(positions < len(plan.hard))) for positions in windows)
    rows = sum(map(len, windows)) - pairs
    return {"pairs": pairs, **({"sft_rows": rows} if rows else {})}


def verify_rows(rows: pa.Table, expected: NDArray[np.int64], index: Index, step: int) -> None:
    """A silent reordering anywhere between the disk and here becomes an error."""
    arrived: Sequence[str] = rows["pair_id"].to_pylist()
    wanted = [index.pair_id[position] for position in expected]
    if arrived == wanted:
        return
    if len(arrived) != len(wanted):
        raise CurriculumError(f"step {step}: {len(arrived)} rows arrived where the plan has {len(wanted)}")
    wrong = next(number for number, pair_id in enumerate(wanted) if arrived[number] != pair_id)
    raise CurriculumError(
        f"step {step}: pair {arrived[wrong]} arrived where the plan has {wanted[wrong]} (position {expected[wrong]})"
    )
