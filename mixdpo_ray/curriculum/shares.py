"""How one window is shared out: to ranks by tokens, to micro-batches by length. Each rank computes it from the index.

Sorting by length inside one optimizer step changes no curriculum and saves most of the padding. Ranks with fewer
micro-batches than others repeat a real pair with weight 0, because under ZeRO-3 every rank must run every forward pass.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lengths:
    """Token counts of a window's pairs, [pairs] each."""

    prompt: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64]) -> Lengths:
        columns = (self.prompt, self.chosen, self.rejected)  # an index may hold fewer bits than sums need
        return Lengths(*(column[rows].astype(np.int64, copy=False) for column in columns))


@dataclass(frozen=True)
class MicroBatch:
    rows: NDArray[np.int64]  # numbers inside the window
    weight: int  # 1, or 0 for a filler


Share = tuple[MicroBatch, ...]


def deal(lengths: Lengths, hard: NDArray[np.bool_], world: int, per_device: int) -> tuple[Share, ...]:
    """The micro-batches of every rank, equally many for each."""
    longest = _longest(lengths, hard)
    most = -(-len(hard) // world)
    micro_batches = -(-most // per_device)
    filler = np.array([np.argmin(longest)], np.int64)
    dealt = _dealt(lengths, hard, longest, world)
    return tuple(_micro_batches(np.array(rows, np.int64), micro_batches, per_device, filler) for rows in dealt)


def rows_of_rank(lengths: Lengths, hard: NDArray[np.bool_], world: int, rank: int) -> NDArray[np.int64]:
    """The rows of all micro-batches that `deal` gives a rank, fillers too, each once and ascending."""
    longest = _longest(lengths, hard)
    return np.array(sorted(_dealt(lengths, hard, longest, world)[rank]) or [int(np.argmin(longest))], np.int64)


def _longest(lengths: Lengths, hard: NDArray[np.bool_]) -> NDArray[np.int64]:
    longest: NDArray[np.int64]
    longest = lengths.prompt + np.where(hard, lengths.chosen, np.maximum(lengths.chosen, lengths.rejected))
    return longest


def _dealt(lengths: Lengths, hard: NDArray[np.bool_], longest: NDArray[np.int64], world: int) -> list[list[int]]:
    """The longest pair left goes to the least loaded rank, of equal ones to the first."""
    tokens = lengths.prompt + lengths.chosen + np.where(hard, 0, lengths.prompt + lengths.rejected)
    most = -(-len(hard) // world)
    dealt: list[list[int]] = [[] for _ in range(world)]
    order = np.lexsort((np.arange(len(hard)), -tokens, -longest))
    open_ranks = list(range(world))  # a heap of tokens so far * world + rank: numbers compare faster than tuples
    for row, load in zip(order.tolist(), (tokens[order] * world).tolist(), strict=True):
        rows = dealt[open_ranks[0] % world]
        rows.append(row)
        if len(rows) < most:
            heapq.heapreplace(open_ranks, open_ranks[0] + load)
        else:
            heapq.heappop(open_ranks)
    return dealt


def _micro_batches(rows: NDArray[np.int64], count: int, per_device: int, filler: NDArray[np.int64]) -> Share:
    cut = [MicroBatch(rows[first : first + per_device], 1) for first in range(0, len(rows), per_device)]
    return tuple(cut + [MicroBatch(rows[-1:] if len(rows) else filler, 0)] * (count - len(cut)))
