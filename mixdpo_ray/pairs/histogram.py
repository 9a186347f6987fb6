"""How many pairs have which margin: small enough to keep in a manifest, fine enough to choose a threshold by."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from mixdpo_ray.settings import Settings

MOST_GRID_VALUES = 64
BINS = 40


class MarginHistogram(Settings):
    """Bins of margins: one value each on a rating grid (low equals high); else of equal width, the last one closed."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    count: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if not len(self.low) == len(self.high) == len(self.count):
            raise ValueError(f"{len(self.low)} lower edges, {len(self.high)} upper ones, {len(self.count)} counts")
        return self

    @property
    def on_grid(self) -> bool:
        return self.low == self.high


def margin_histogram(margins: NDArray[np.float64]) -> MarginHistogram:
    # ratings that are means of thirds differ in their last bits: they are one value of the grid
    values, counts = np.unique(np.round(margins, 6), return_counts=True)
    if len(values) <= MOST_GRID_VALUES:
        grid = tuple(values.tolist())
        return MarginHistogram(low=grid, high=grid, count=tuple(counts.tolist()))
    counts, edges = np.histogram(margins, bins=BINS)
    return MarginHistogram(low=tuple(edges[:-1].tolist()), high=tuple(edges[1:].tolist()), count=tuple(counts.tolist()))
