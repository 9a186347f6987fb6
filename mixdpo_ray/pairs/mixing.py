"""A mix of sources: pairs that were read apart become those of one source, of each as many as its weight keeps.

A weight keeps a share of its source's pairs, to the nearest pair, once refused rows and duplicates no longer count:
those of the smallest hashes of their ids. So neither files nor other sources decide which pairs they are, and a larger
weight keeps the same ones and more. No weight is above 1: a pair stands in a table once, because references, scores and
held-out pairs are known by its id, and a repeated one is refused as a duplicate. Lower the weights of the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import seeded_hashes

WEIGHT_SALT = 1 << 42  # not the hash that breaks ties, nor that of a sample or of flips


def together(keys: pa.Table, sources: int) -> pa.Table:
    """The keys with number 0 for the first sources, all of the mix, and from 1 on for those behind them."""
    numbers = np.maximum(np.asarray(keys["source_number"].to_numpy(), np.int8) - (sources - 1), 0).astype(np.int8)
    return keys.set_column(keys.column_names.index("source_number"), "source_number", pa.array(numbers))


def beyond_weights(keys: pa.Table, first: NDArray[np.bool_], weights: Mapping[str, float]) -> NDArray[np.int64]:
    """Row numbers of pairs that the weights leave out, of those in `first`."""
    mixed = first & (keys["source_number"].to_numpy() == 0)
    left_out = [np.zeros(0, np.int64)]
    for name, weight in weights.items():
        mine = np.flatnonzero(mixed & pc.equal(keys["source"], name).to_numpy())
        lots = np.argsort(seeded_hashes(keys["pair_id"].take(mine), WEIGHT_SALT), kind="stable")
        left_out.append(mine[lots[round(weight * len(mine)) :]])
    return np.sort(np.concatenate(left_out))
