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


def deal(
    lengths: Lengths, hard: NDArray[np.bool_], world: int, per_device: int, *, packed: bool = False
) -> tuple[Share, ...]:
    """The micro-batches of every rank, equally many for each. `packed`: a prompt is run once, and nothing is padded."""
    longest = _longest(lengths, hard)
    most = -(-len(hard) // world)
    micro_batches = -(-most // per_device)
    filler = np.array([np.argmin(longest)], np.int64)
    dealt = [np.array(rows, np.int64) for rows in _dealt(lengths, hard, longest, world)]
    computed = lengths.prompt + lengths.chosen + np.where(hard, 0, lengths.rejected)
    if packed:
        cut = [_levelled(rows, computed, micro_batches, per_device) for rows in dealt]
    else:
        cut = [[rows[first : first + per_device] for first in range(0, len(rows), per_device)] for rows in dealt]
    return tuple(_share(micros, micro_batches, filler) for micros in cut)


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


def _levelled(
    rows: NDArray[np.int64], computed: NDArray[np.int64], count: int, per_device: int
) -> list[NDArray[np.int64]]:
    """Cut into micro-batches of like many computed tokens: the longest pair left goes to the lightest that has room."""
    micros: list[list[int]] = [[] for _ in range(min(count, len(rows)))]
    loads = np.zeros(len(micros), np.int64)
    for row in rows[np.argsort(-computed[rows], kind="stable")].tolist():
        room = [number for number, members in enumerate(micros) if len(members) < per_device]
        least = min(room, key=lambda number: loads[number])
        micros[least].append(row)
        loads[least] += computed[row]
    return [np.array(micros[number], np.int64) for number in np.argsort(-loads, kind="stable")]


def _share(micros: list[NDArray[np.int64]], count: int, filler: NDArray[np.int64]) -> Share:
    """A rank's micro-batches, and fillers up to `count`: the last pair again, which has been read anyway."""
    own = [MicroBatch(rows, 1) for rows in micros]
    return tuple(own + [MicroBatch(micros[-1][-1:] if micros else filler, 0)] * (count - len(own)))
