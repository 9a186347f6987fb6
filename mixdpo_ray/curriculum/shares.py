"""How one window is shared out: to ranks by tokens, to micro-batches by length. Each rank computes it from the index.

Sorting by length inside one optimizer step changes no curriculum and saves most of the padding. Without padding, in
packed rows, micro-batches get like many tokens instead. Ranks with fewer micro-batches than others repeat a real pair
with weight 0, because under ZeRO-3 every rank must run every forward pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mixdpo_ray.settings import Settings


class TokenBudget(Settings):
    """How much goes through the model at once, by tokens instead of by pairs. Packed rows alone can have it."""

    tokens: int = Field(ge=1, description="Most tokens of a forward pass; a pair of more has a pass of its own")


PassSize = int | TokenBudget  # pairs or tokens of one forward pass


@dataclass(frozen=True)
class Lengths:
    """Token counts of a window's pairs, [pairs] each."""

    prompt: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    scored: tuple[NDArray[np.int64], NDArray[np.int64]] | None = field(default=None, kw_only=True)  # none: all of both

    @property
    def chosen_scored(self) -> NDArray[np.int64]:
        return self.chosen if self.scored is None else self.scored[0]

    @property
    def rejected_scored(self) -> NDArray[np.int64]:
        return self.rejected if self.scored is None else self.scored[1]

    def __getitem__(self, rows: NDArray[np.int64]) -> Lengths:
        prompt, chosen, rejected = (_at(column, rows) for column in (self.prompt, self.chosen, self.rejected))
        scored = None if self.scored is None else (_at(self.scored[0], rows), _at(self.scored[1], rows))
        return Lengths(prompt, chosen, rejected, scored=scored)


def _at(column: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """An index may hold fewer bits than sums need."""
    return column[rows].astype(np.int64, copy=False)


@dataclass(frozen=True)
class MicroBatch:
    rows: NDArray[np.int64]  # numbers inside the window
    weight: int  # 1, or 0 for a filler


Share = tuple[MicroBatch, ...]


def deal(
    lengths: Lengths, hard: NDArray[np.bool_], world: int, per_device: PassSize, *, packed: bool = False
) -> tuple[Share, ...]:
    """The micro-batches of every rank, equally many for each. `packed`: a prompt is run once, and nothing is padded."""
    dealt = [np.array(rows, np.int64) for rows in _dealt(lengths, hard, world, packed=packed)]
    computed = _computed(lengths, hard, packed=packed)
    if isinstance(per_device, TokenBudget):
        assert packed, "padding has no part in a budget of tokens"
        cut = _under_budget(dealt, computed, per_device.tokens)
    elif packed:
        count = -(-max(map(len, dealt)) // per_device)
        cut = [_levelled(rows, computed, min(count, len(rows)), per_device) for rows in dealt]
    else:
        cut = [[rows[first : first + per_device] for first in range(0, len(rows), per_device)] for rows in dealt]
    filler, most = np.array([_shortest(lengths, hard)], np.int64), max(map(len, cut))
    return tuple(_share(micros, most, filler) for micros in cut)


def rows_of_rank(
    lengths: Lengths, hard: NDArray[np.bool_], world: int, rank: int, *, packed: bool = False
) -> NDArray[np.int64]:
    """The rows of all micro-batches that `deal` gives a rank, fillers too, each once and ascending."""
    dealt = sorted(_dealt(lengths, hard, world, packed=packed)[rank])
    return np.array(dealt or [_shortest(lengths, hard)], np.int64)


def _shortest(lengths: Lengths, hard: NDArray[np.bool_]) -> int:
    return int(np.argmin(_longest(lengths, hard)))


def _computed(lengths: Lengths, hard: NDArray[np.bool_], *, packed: bool) -> NDArray[np.int64]:
    """The tokens that are run for each pair."""
    tokens: NDArray[np.int64]
    rejected = lengths.rejected if packed else lengths.prompt + lengths.rejected
    tokens = lengths.prompt + lengths.chosen + np.where(hard, 0, rejected)
    return tokens


def _longest(lengths: Lengths, hard: NDArray[np.bool_]) -> NDArray[np.int64]:
    longest: NDArray[np.int64]
    longest = lengths.prompt + np.where(hard, lengths.chosen, np.maximum(lengths.chosen, lengths.rejected))
    return longest


def _dealt(lengths: Lengths, hard: NDArray[np.bool_], world: int, *, packed: bool) -> list[list[int]]:
    """The longest pair left goes to the least loaded rank, of equal ones to the first.

    Padding goes by a pair's longer answer, so the longest pair is that of the longest; packed, that of most tokens.
    """
    tokens = _computed(lengths, hard, packed=packed)
    most = -(-len(hard) // world)
    dealt: list[list[int]] = [[] for _ in range(world)]
    order = np.lexsort((np.arange(len(hard)), -tokens, -(tokens if packed else _longest(lengths, hard))))
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
    micros: list[list[int]] = [[] for _ in range(count)]
    loads = np.zeros(len(micros), np.int64)
    for row in rows[np.argsort(-computed[rows], kind="stable")].tolist():
        room = [number for number, members in enumerate(micros) if len(members) < per_device]
        least = min(room, key=lambda number: loads[number])
        micros[least].append(row)
        loads[least] += computed[row]
    return _heaviest_first(micros, loads)


def _under_budget(
    dealt: Sequence[NDArray[np.int64]], computed: NDArray[np.int64], budget: int
) -> list[list[NDArray[np.int64]]]:
    """Each rank's micro-batches of at most `budget` tokens, or of one pair of more.

    All get as many as the rank that needs most, and of like size where that keeps the budget: a small one would take a
    pass as well, and so would a filler.
    """
    filled = [_first_fit(rows, computed, budget) for rows in dealt]
    most = max(map(len, filled))
    cut = []
    for rows, micros in zip(dealt, filled, strict=True):
        level = _levelled(rows, computed, min(most, len(rows)), len(rows))
        keeps = all(len(micro) == 1 or computed[micro].sum() <= budget for micro in level)
        cut.append(level if keeps else micros)
    return cut


def _first_fit(rows: NDArray[np.int64], computed: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Cut into few micro-batches: the longest pair left goes to the first that has room, or to a new one."""
    micros: list[list[int]] = []
    loads: list[int] = []
    for row in rows[np.argsort(-computed[rows], kind="stable")].tolist():
        load = int(computed[row])
        number = next((number for number, held in enumerate(loads) if held + load <= budget), len(micros))
        if number == len(micros):
            micros.append([])
            loads.append(0)
        micros[number].append(row)
        loads[number] += load
    return _heaviest_first(micros, np.array(loads, np.int64))


def _heaviest_first(micros: Sequence[list[int]], loads: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [np.array(micros[number], np.int64) for number in np.argsort(-loads, kind="stable")]


def _share(micros: list[NDArray[np.int64]], count: int, filler: NDArray[np.int64]) -> Share:
    """A rank's micro-batches, and fillers up to `count`: the last pair again, which has been read anyway."""
    own = [MicroBatch(rows, 1) for rows in micros]
    return tuple(own + [MicroBatch(micros[-1][-1:] if micros else filler, 0)] * (count - len(own)))
