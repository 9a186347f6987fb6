"""Difficulty metrics that a prepared table answers by itself. Inside the house higher always means easier.

Those that need a model are columns of their own, computed by the cluster; a recipe names both in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[np.float64]]

RATING_MARGIN = "rating_margin"


@dataclass(frozen=True)
class Difficulty:
    column: str  # of the prepared table: its own values are what people give limits for
    sign: int = 1  # -1 where smaller values are easier

    def __call__(self, columns: Columns) -> NDArray[np.float64]:
        return self.sign * columns[self.column]


DIFFICULTIES: dict[str, Difficulty] = {
    RATING_MARGIN: Difficulty("margin"),
    "score_chosen": Difficulty("score_chosen"),
    "score_rejected": Difficulty("score_rejected"),
    "prompt_length": Difficulty("prompt_length", -1),
    "chosen_length": Difficulty("chosen_length", -1),
    "rejected_length": Difficulty("rejected_length", -1),
}


def sign_of(metric: str) -> int:
    """What the values that people see are multiplied by to make higher easier; computed columns already are."""
    return DIFFICULTIES[metric].sign if metric in DIFFICULTIES else 1
