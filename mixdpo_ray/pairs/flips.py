"""Label noise on purpose: with a given probability the two answers of a training pair are exchanged.

Whether a pair is flipped is a hash of its id, so it depends neither on the order of the pairs nor on which others are
there, and a higher probability flips the same pairs and more. Ratings stay with their answers; the margin, which losses
read as what the annotator saw, stays as it is. A flipped pair is another pair and gets an id of its own: what is keyed
by pair_id (reference log-probs) never mixes up the sides.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import PairIdColumn, seeded_hashes

FLIP_SALT = 1 << 41  # not the hash that breaks ties: among equal margins noise would come first
EXCHANGED = (
    ("chosen_ids", "rejected_ids"), ("score_chosen", "score_rejected"), ("chosen_length", "rejected_length"),
    ("rated_chosen", "rated_rejected"), ("doubt_chosen", "doubt_rejected"), ("chosen_runs", "rejected_runs"),
    ("chosen_scored", "rejected_scored"),
)  # fmt: skip


def flipped(pair_ids: PairIdColumn, probability: float, seed: int) -> NDArray[np.bool_]:
    if probability == 0:
        return np.zeros(len(pair_ids), np.bool_)
    return np.asarray(seeded_hashes(pair_ids, seed + FLIP_SALT) / 2.0**64 < probability)


def flipped_id(pair_id: str) -> str:
    return hashlib.sha256(f"flipped {pair_id}".encode()).hexdigest()[:32]


def with_flips(rows: pa.Table, flip: NDArray[np.bool_], mark: str = "flipped") -> pa.Table:
    """Rows of parts or of an index, `flip` [rows] of them exchanged, and a column `mark` that says which."""
    numbers = np.arange(len(rows))
    for one, other in EXCHANGED:
        if one in rows.column_names:
            rows = _exchanged(rows, one, other, np.where(flip, numbers + len(rows), numbers))
    if (several := "rater_margins") in rows.column_names:
        rows = rows.set_column(rows.column_names.index(several), several, _negated(rows[several], flip))
    ids = rows["pair_id"]
    named = pa.array([flipped_id(pair_id) for pair_id in ids.filter(pa.array(flip)).to_pylist()], ids.type)
    source = np.where(flip, len(rows) + np.cumsum(flip) - 1, numbers)
    both = pa.chunked_array([*ids.chunks, named], ids.type)
    return rows.set_column(rows.column_names.index("pair_id"), "pair_id", both.take(source)).append_column(
        mark, pa.array(flip)
    )


def _negated(lists: pa.ChunkedArray, flip: NDArray[np.bool_]) -> pa.Array:
    """Lists of numbers, with the other sign where a row is flipped."""
    turned = [
        None if one is None else [-number for number in one] if flips else one
        for one, flips in zip(lists.to_pylist(), flip.tolist(), strict=True)
    ]
    return pa.array(turned, lists.type)


def _exchanged(rows: pa.Table, one: str, other: str, source: NDArray[np.int64]) -> pa.Table:
    """`source`: rows of both columns, one behind the other, that the first one now takes."""
    first, second = rows[one], rows[other]
    both = pa.chunked_array([*first.chunks, *second.chunks], first.type)
    opposite = np.where(source >= len(rows), source - len(rows), source + len(rows))
    for name, where in ((one, source), (other, opposite)):
        rows = rows.set_column(rows.column_names.index(name), name, both.take(where))
    return rows
