"""What a plan needs of every pair of a split, without a token: ids, margins, and counts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH_COLUMNS = ("prompt_length", "chosen_length", "rejected_length")
SCORED = ("chosen_scored", "rejected_scored")  # tokens of answers that are the assistant's


@dataclass(frozen=True)
class Index:
    """Row number = position. Every rank holds it: 20 bytes a pair, since ids stay on disk until one is asked for."""

    pair_id: Sequence[str]
    margin: NDArray[np.float64]
    prompt_length: NDArray[Any]  # integers of 32 bits, where they come from a file
    chosen_length: NDArray[Any]
    rejected_length: NDArray[Any]
    metric: NDArray[np.float64] | None = None  # higher is easier; none where the margin is the metric
    scored: tuple[NDArray[Any], NDArray[Any]] | None = None  # none where every answer is one turn

    @property
    def difficulty(self) -> NDArray[np.float64]:
        return self.margin if self.metric is None else self.metric

    @property
    def chosen_scored(self) -> NDArray[Any]:
        """Tokens whose log-probs count: without turns of users and tools inside an answer."""
        return self.chosen_length if self.scored is None else self.scored[0]

    @property
    def rejected_scored(self) -> NDArray[Any]:
        return self.rejected_length if self.scored is None else self.scored[1]

    def counts(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The columns of counts at these positions, as an index has them."""
        names = LENGTH_COLUMNS if self.scored is None else (*LENGTH_COLUMNS, *SCORED)
        return {name: np.asarray(getattr(self, name)[rows]) for name in names}

    def part(self, rows: range) -> Index:
        """The index of consecutive rows, counted from the first of them."""
        if rows == range(len(self)):
            return self
        here = slice(rows.start, rows.stop)
        return Index(
            self.pair_id[here],
            self.margin[here],
            self.prompt_length[here],
            self.chosen_length[here],
            self.rejected_length[here],
            metric=None if self.metric is None else self.metric[here],
            scored=None if self.scored is None else (self.scored[0][here], self.scored[1][here]),
        )

    def __len__(self) -> int:
        return len(self.margin)
