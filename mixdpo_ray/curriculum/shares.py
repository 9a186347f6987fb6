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
        return Lengths(self.prompt[rows], self.chosen[rows], self.rejected[rows])


@dataclass(frozen=True)
class MicroBatch:
    rows: NDArray[np.int64]  # numbers inside the window
    weight: int  # 1, or 0 for a filler


Share = tuple[MicroBatch, ...]


def deal(lengths: Lengths, hard: NDArray[np.bool_], world: int, per_device: int) -> tuple[Share, ...]:
    """The micro-batches of every rank, equally many for each: the longest pair left goes to the least loaded rank."""
    pairs = len(hard)
    longest = lengths.prompt + np.where(hard, lengths.chosen, np.maximum(lengths.chosen, lengths.rejected))
    tokens = lengths.prompt + lengths.chosen + np.where(hard, 0, lengths.prompt + lengths.rejected)
    most = -(-pairs // world)
    micro_batches = -(-most // per_device)
    dealt: list[list[int]] = [[] for _ in range(world)]
    open_ranks = [(0, rank) for rank in range(world)]  # a heap of (tokens so far, rank)
    for row in np.lexsort((np.arange(pairs), -tokens, -longest)).tolist():
        load, rank = heapq.heappop(open_ranks)
        dealt[rank].append(row)
        if len(dealt[rank]) < most:
            heapq.heappush(open_ranks, (load + int(tokens[row]), rank))
    shortest = int(np.argmin(longest))
    return tuple(_micro_batches(rows, micro_batches, per_device, shortest) for rows in dealt)


def _micro_batches(rows: list[int], count: int, per_device: int, shortest: int) -> Share:
    cut = [np.array(rows[i : i + per_device], np.int64) for i in range(0, len(rows), per_device)]
    filler = MicroBatch(np.array(rows[-1:] or [shortest], np.int64), 0)
    return tuple([MicroBatch(piece, 1) for piece in cut] + [filler] * (count - len(cut)))
