"""Halves of a data set, drawn by a hash of pair_id: they depend neither on the table's order nor on who draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import PairIdColumn, seeded_hashes
from mixdpo_ray.curriculum.plan import Plan, Segment


@dataclass(frozen=True)
class Half:
    """One of the two halves that a seed draws; together they are all pairs, each once."""

    seed: int
    number: int  # 0 or 1

    @property
    def other(self) -> Half:
        return Half(self.seed, 1 - self.number)

    def positions(self, pair_ids: PairIdColumn) -> NDArray[np.int64]:
        """Row numbers, shuffled."""
        return np.argsort(seeded_hashes(pair_ids, self.seed), kind="stable")[self.number :: 2]

    def outside(self, pair_ids: PairIdColumn) -> NDArray[np.bool_]:
        """The mask of the other half."""
        outside = np.ones(len(pair_ids), np.bool_)
        outside[self.positions(pair_ids)] = False
        return outside

    def plan(self, pair_ids: PairIdColumn, batch: int, epochs: int) -> Plan:
        """Train this half in random order; no pair is hard, the other half is not there."""
        positions = self.positions(pair_ids)
        windows = [np.sort(positions[first : first + batch]) for first in range(0, len(positions), batch)]
        order, numbers = np.concatenate(windows), np.arange(len(windows))
        segments = tuple(Segment("easy", epoch, 0, order, numbers) for epoch in range(epochs))
        return Plan(segments, self.outside(pair_ids), batch)
