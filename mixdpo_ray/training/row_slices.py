"""A packed row cut by position, into equally long slices for the ranks that run it together (sequence_ranks.py).

A slice has its tokens with their positions, and the layout of the whole row: that is what attention sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowSlice:
    """The slice `number` of `of`. What the last ones lack of their length is filled with tokens that nobody sees."""

    number: int = 0
    of: int = 1

    def width(self, tokens: int) -> int:
        return -(-tokens // self.of)

    def start(self, tokens: int) -> int:
        return self.number * self.width(tokens)

    def holds(self, indices: NDArray[np.int64], tokens: int) -> NDArray[np.bool_]:
        """Which indices into a row of so many tokens lie in the slice."""
        held: NDArray[np.bool_] = indices // self.width(tokens) == self.number
        return held

    def cut(self, row: Tensor) -> Tensor:
        """[1, tokens] -> [1, width]."""
        from torch.nn.functional import pad

        start, width = self.start(row.shape[1]), self.width(row.shape[1])
        own = row[:, start : start + width]
        return pad(own, (0, width - own.shape[1]))


WHOLE = RowSlice()
