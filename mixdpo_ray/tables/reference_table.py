"""Reference log-probs on disk, keyed by pair_id, so that another order or threshold only adds what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.tables.keyed_table import KeyedTable


class ReferenceTable(KeyedTable):
    what: ClassVar[str] = "references"
    made_by: ClassVar[str] = "jobs/train.py"
    kind: ClassVar[pa.DataType] = pa.float32()
    own_columns: ClassVar[tuple[str, ...]] = ("ref_chosen_logp", "ref_rejected_logp")

    def aligned(self, pair_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log-probs of the chosen and the rejected answers; NaN where a pair is not covered."""
        chosen, rejected = (self.column(name, pair_ids) for name in self.own_columns)
        return chosen, rejected


TOKENS = "-tokens"  # behind the name of the folder of the sums


class TokenReferenceTable(KeyedTable):
    what: ClassVar[str] = "references of tokens"
    made_by: ClassVar[str] = "jobs/train.py"
    kind: ClassVar[pa.DataType] = pa.list_(pa.float32())
    own_columns: ClassVar[tuple[str, ...]] = ("ref_chosen_logps", "ref_rejected_logps")

    def aligned(self, pair_ids: Sequence[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Lists of log-probs of the chosen and the rejected answers; empty where a pair is not covered."""
        rows = self._rows_of(pair_ids)
        chosen, rejected = (self.rows[name].take(rows) for name in self.own_columns)
        return chosen, rejected

    def _finite(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        return np.array([np.isfinite(tokens).all() for tokens in column.to_numpy()], np.bool_)
