"""What a plan's positions stand for: the training pairs, and behind them the rows of data.sft, which have no rejected
answer and lie in a split of their own. So nothing that looks at the training split takes them for pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.tables.index import LENGTH_COLUMNS, SCORED, Index
from mixdpo_ray.tables.prepared_table import SPLITS, PreparedTable

SFT_SPLIT = "sft"  # the split; tables without data.sft have none


def splits_of(table: PreparedTable) -> tuple[str, ...]:
    return (*SPLITS, SFT_SPLIT) if SFT_SPLIT in table.manifest.splits else SPLITS


def sft_rows(table: PreparedTable) -> int:
    return table.rows(SFT_SPLIT) if SFT_SPLIT in table.manifest.splits else 0


class JoinedIds(Sequence[str]):
    """The ids of pairs, and behind them those of rows."""

    def __init__(self, pairs: Sequence[str], rows: Sequence[str]):
        self._pairs, self._rows = pairs, rows

    def __len__(self) -> int:
        return len(self._pairs) + len(self._rows)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        behind = position - len(self._pairs)
        return self._pairs[position] if behind < 0 else self._rows[behind]

    def __iter__(self) -> Iterator[str]:
        yield from self._pairs
        yield from self._rows


def trained_index(table: PreparedTable) -> Index:
    """The index of all positions of a plan. That of the training split where there are no other rows."""
    pairs = table.index("train")
    if not sft_rows(table):
        return pairs
    known = table._indexes
    if "trained" not in known:
        rows = table.index(SFT_SPLIT)
        joined = {
            name: np.concatenate([getattr(pairs, name), getattr(rows, name)])
            for name in ("margin", *LENGTH_COLUMNS, *SCORED)
        }
        alike = pairs.scored is None and rows.scored is None
        scored = (joined.pop(SCORED[0]), joined.pop(SCORED[1]))
        ids = JoinedIds(pairs.pair_id, rows.pair_id)
        known["trained"] = Index(ids, **joined, scored=None if alike else scored)
    return known["trained"]


def read_trained(table: PreparedTable, positions: NDArray[np.int64]) -> pa.Table:
    """Rows at positions of a plan, ascending; rows of data.sft have no rejected tokens."""
    pairs = table.rows("train")
    behind = int(np.searchsorted(positions, pairs))
    if behind == len(positions):
        return table.read("train", positions)
    rows = table.read(SFT_SPLIT, positions[behind:] - pairs)
    rows = rows.set_column(0, "position", pa.array(positions[behind:]))
    if not behind:
        return rows
    return pa.concat_tables([table.read("train", positions[:behind]), rows], promote_options="default")
