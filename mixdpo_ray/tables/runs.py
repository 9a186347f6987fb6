"""Which tokens of an answer are the assistant's: in a table, lengths of runs, the assistant's and others in turn.

A table of single turns has no such columns, and a row whose answer is one turn has nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixdpo_ray.tables.index import SCORED

RUNS = ("chosen_runs", "rejected_runs")


def scored_counts(rows: pa.Table) -> dict[str, pa.Array]:
    """The tokens of answers that are the assistant's; no columns where the rows have no runs."""
    if RUNS[0] not in rows.column_names:
        return {}
    return {
        scored: pa.array(_counts(rows[runs], rows[ids]), pa.int64())
        for scored, runs, ids in zip(SCORED, RUNS, ("chosen_ids", "rejected_ids"), strict=True)
    }


def scored_columns(keys: pa.Table) -> tuple[str, ...]:
    """The columns of counts that an index needs: none where every token of every answer is the assistant's."""
    lengths = ("chosen_length", "rejected_length")
    alike = all(
        np.array_equal(keys[scored].to_numpy(), keys[length].to_numpy())
        for scored, length in zip(SCORED, lengths, strict=True)
    )
    return () if alike else SCORED


def _counts(runs: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    counts = pc.list_value_length(ids).cast(pa.int64()).to_numpy().copy()
    for row in np.flatnonzero(runs.is_valid().to_numpy()):
        counts[row] = sum(runs[int(row)].as_py()[::2])
    return np.asarray(counts, np.int64)


def mask_of(runs: Sequence[int] | None, length: int) -> NDArray[np.bool_]:
    """[length] true at the tokens that are the assistant's."""
    if runs is None:
        return np.ones(length, np.bool_)
    mask = np.repeat(np.arange(len(runs)) % 2 == 0, runs)
    assert len(mask) == length, "runs cover an answer"
    return mask
