"""Difficulty metrics by name. Inside the house higher always means easier."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[np.float64]]


def rating_margin(columns: Columns) -> NDArray[np.float64]:
    """Rating of the chosen answer minus rating of the rejected one, as checked at preparation."""
    return columns["margin"]


DIFFICULTIES: dict[str, Callable[[Columns], NDArray[np.float64]]] = {
    "rating_margin": rating_margin,
}
