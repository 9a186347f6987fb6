"""A prompt with foreign answers: those of the pair behind it in the table, and of the last pair those of the first.

The neighbour does not depend on thresholds or batch sizes, so what a reference model says of it can be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.runs import RUNS

MISMATCHED = "mismatched"  # stands beside the names of splits: the training split with foreign answers


def behind(positions: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    return (positions + 1) % rows


def mismatched_ids(index: Index, positions: Iterable[int]) -> list[str]:
    """Names of prompt and foreign answers together, for the reference table."""
    rows = len(index)
    names = ((index.pair_id[int(position)], index.pair_id[(int(position) + 1) % rows]) for position in positions)
    return [hashlib.sha256(" ".join(both).encode()).hexdigest()[:32] for both in names]


def index_of(table: PreparedTable, split: str) -> Index:
    return table.index("train" if split == MISMATCHED else split)


def ids_of(table: PreparedTable, split: str, positions: NDArray[np.int64]) -> list[str]:
    index = index_of(table, split)
    if split == MISMATCHED:
        return mismatched_ids(index, positions.tolist())
    return [index.pair_id[int(position)] for position in positions]


def rows_of(table: PreparedTable, split: str, positions: NDArray[np.int64]) -> pa.Table:
    return mismatched_rows(table, positions) if split == MISMATCHED else table.read(split, positions)


def mismatched_rows(table: PreparedTable, positions: NDArray[np.int64]) -> pa.Table:
    """Rows of the training split at ascending positions, their answers exchanged for foreign ones."""
    rows = table.read("train", positions)
    foreign = table.read("train", behind(positions, table.rows("train")))
    for name in ("chosen_ids", "rejected_ids", *(one for one in RUNS if one in rows.column_names)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, foreign[name])
    names = mismatched_ids(table.index("train"), positions.tolist())
    return rows.set_column(rows.schema.get_field_index("pair_id"), "pair_id", pa.array(names, pa.string()))
