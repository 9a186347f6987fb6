"""Halves of a data set, drawn by a hash of pair_id: they depend neither on the table's order nor on who draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import PairIdColumn, seeded_hashes
from mixdpo_ray.curriculum.plan import Plan, Segment
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.job import TrainingJob


def half_of(pair_ids: PairIdColumn, seed: int, half: int) -> NDArray[np.int64]:
    """Row numbers of half 0 or half 1, shuffled; together they are all rows, each once."""
    return np.argsort(seeded_hashes(pair_ids, seed), kind="stable")[half::2]


@dataclass(frozen=True)
class HalfJob(TrainingJob):
    """Trains one half of a table in random order; no pair is hard, the other half is not there."""

    seed: int = 0
    half: int = 0

    def positions(self, table: PreparedTable) -> NDArray[np.int64]:
        return half_of(table.index("train").pair_id, self.seed, self.half)

    def hard(self, table: PreparedTable) -> NDArray[np.bool_]:
        outside = np.ones(table.rows("train"), np.bool_)
        outside[self.positions(table)] = False
        return outside

    def plan(self, table: PreparedTable) -> Plan:
        positions, batch = self.positions(table), self.train.global_batch_size
        windows = [np.sort(positions[first : first + batch]) for first in range(0, len(positions), batch)]
        order, numbers = np.concatenate(windows), np.arange(len(windows))
        epochs = range(self.train.num_train_epochs)
        return Plan(tuple(Segment("easy", epoch, 0, order, numbers) for epoch in epochs), self.hard(table), batch)
