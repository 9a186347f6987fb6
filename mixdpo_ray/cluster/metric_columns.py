"""The columns that pairs are ordered and selected by: those of the prepared table, and those that were computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.cluster import scoring
from mixdpo_ray.curriculum.difficulty import DIFFICULTIES
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.recipe import Recipe


def metric_columns(recipe: Recipe, table: PreparedTable, names: Iterable[str]) -> scoring.Columns:
    """As people know the values: those of the table by themselves, computed ones with higher as easier."""
    names = list(dict.fromkeys(names))
    own: scoring.Columns = {
        name: {split: _own(table, split, DIFFICULTIES[name].column) for split in scoring.SPLITS}
        for name in names
        if name in DIFFICULTIES
    }
    computed = [name for name in names if name not in DIFFICULTIES]
    return own | scoring.metric_columns(recipe, table, computed) if computed else own


def metric_identities(recipe: Recipe) -> dict[str, Any]:
    """What the values of the metrics that a recipe orders and selects by depend on, beyond the pairs themselves."""
    return {
        name: None if name in DIFFICULTIES else scoring.metric_identity(recipe, name) for name in recipe.metrics_used
    }


def _own(table: PreparedTable, split: str, column: str) -> NDArray[np.float64]:
    index = table.index(split)
    if column.startswith("score"):
        return np.asarray(table.column(split, column).to_numpy(), np.float64)
    return np.asarray(getattr(index, column), np.float64)
