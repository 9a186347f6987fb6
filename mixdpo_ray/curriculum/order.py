"""The physical order of a prepared table: difficulty first, then a seeded hash of pair_id.

The hash breaks ties, so the order depends neither on the order of the files nor on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Order = Literal["descending", "ascending", "shuffled"]
PairIdColumn = Sequence[str] | Any  # or an Arrow column of them: many millions take a third of the memory
AT_ONCE = 1 << 20


def seeded_hashes(pair_ids: PairIdColumn, seed: int) -> NDArray[np.uint64]:
    """A uniform 64-bit number per pair id (hexadecimal digests), by splitmix64 of its first 8 bytes and the seed."""
    import pyarrow as pa

    column = pair_ids if isinstance(pair_ids, pa.ChunkedArray) else pa.array(pair_ids, pa.string())
    pieces = [_first_words(column.slice(first, AT_ONCE)) for first in range(0, len(column), AT_ONCE)]
    words = np.concatenate([np.zeros(0, np.uint64), *pieces])
    with np.errstate(over="ignore"):
        mixed = words + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _first_words(ids: pa.Array) -> NDArray[np.uint64]:
    import pyarrow.compute as pc

    digits = "".join(pc.utf8_slice_codeunits(ids, 0, 16).to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def easiest_first(difficulty: NDArray[np.float64], pair_ids: PairIdColumn, seed: int) -> NDArray[np.int64]:
    """Row numbers from the clearest pair to the most ambiguous one. A missing difficulty is a bug: NaN sorts last."""
    assert not np.isnan(difficulty).any(), "difficulty must be finite before it is sorted"
    return np.lexsort((seeded_hashes(pair_ids, seed), -difficulty))


def curriculum_order(
    difficulty: NDArray[np.float64], pair_ids: PairIdColumn, order: Order, seed: int, swap_fraction: float = 0.0
) -> NDArray[np.int64]:
    """Row numbers in the order in which the prepared table holds them."""
    if order == "shuffled":
        # another seed than the tie-break's, or a shuffle of ties would be no shuffle
        return np.argsort(seeded_hashes(pair_ids, seed + 1), kind="stable")
    rows = swap_tail(easiest_first(difficulty, pair_ids, seed), swap_fraction)
    return rows if order == "descending" else rows[::-1].copy()


def swap_tail(rows: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Exchange the last two blocks of round(fraction * rows), as the paper's appendix B.6 does."""
    count = len(rows)
    block = min(round(fraction * count), count // 2)  # half of an odd number rounds up: the blocks would overlap
    if block == 0:
        return rows
    return np.concatenate([rows[: count - 2 * block], rows[count - block :], rows[count - 2 * block : count - block]])
