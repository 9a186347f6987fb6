"""Pair ids by position, read from the index where they are asked for.

A rank names the pairs of its windows and no others. All ids as Python strings take about 90 bytes a pair, which is 9 GB
of 100 million pairs in every process; windows follow each other, so what is at hand mostly holds the next id too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa

from mixdpo_ray.tables.parquet import ParquetColumns

HELD = 2  # row groups as Arrow columns: a window may lie across the edge of one
AT_HAND = 1 << 12  # ids as Python strings


class PairIds(Sequence[str]):
    def __init__(self, file: ParquetColumns):
        self._file = file
        self._held: dict[int, pa.ChunkedArray] = {}
        self._first, self._at_hand = 0, list[str]()

    def __len__(self) -> int:
        return int(self._file.starts[-1])

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        if not 0 <= position - self._first < len(self._at_hand):
            if not -len(self) <= position < len(self):
                raise IndexError(f"position {position} of {len(self)} pairs")
            position = int(position) % len(self)
            self._take(position)
        return self._at_hand[position - self._first]

    def __iter__(self) -> Iterator[str]:
        for group in range(self._file.groups):
            yield from self._file.column("pair_id", group).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.ChunkedArray:
        """All of them, for pa.array(ids): a third of what Python strings take."""
        groups = [self._file.column("pair_id", group) for group in range(self._file.groups)]
        ids = pa.chunked_array([chunk for group in groups for chunk in group.chunks], pa.string())
        return ids if type is None else ids.cast(type)

    def _take(self, position: int) -> None:
        group = int(np.searchsorted(self._file.starts, position, side="right")) - 1
        begin = int(self._file.starts[group])
        skip = (position - begin) // AT_HAND * AT_HAND
        self._first, self._at_hand = begin + skip, self._group(group).slice(skip, AT_HAND).to_pylist()

    def _group(self, group: int) -> Any:
        if group not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            self._held[group] = self._file.column("pair_id", group)
        return self._held[group]
