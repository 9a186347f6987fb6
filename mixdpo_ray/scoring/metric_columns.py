"""The columns that pairs are ordered and selected by: those of the prepared table, and those that were computed.

Only for the latter is scoring imported, which brings torch and Ray Train.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.difficulty import DIFFICULTIES
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import SPLITS, PreparedTable

if TYPE_CHECKING:
    from mixdpo_ray.scoring.metric_scores import ScoreColumns


def computed_columns(recipe: Recipe, table: PreparedTable, names: Iterable[str]) -> ScoreColumns:
    """Values of metrics as people know them: those of the table by themselves, computed ones with higher as easier."""
    names = list(dict.fromkeys(names))
    own: ScoreColumns = {
        name: {split: _own(table, split, DIFFICULTIES[name].column) for split in SPLITS}
        for name in names
        if name in DIFFICULTIES
    }
    return own | _computed(recipe, table, [name for name in names if name not in own])


def metric_identities(recipe: Recipe) -> dict[str, Any]:
    """What the values of the metrics that a recipe orders and selects by depend on, beyond the pairs themselves."""
    return {name: None if name in DIFFICULTIES else _identity(recipe, name) for name in recipe.metrics_used}


def _computed(recipe: Recipe, table: PreparedTable, names: list[str]) -> ScoreColumns:
    if not names:
        return {}
    from mixdpo_ray.scoring.metric_scores import metric_columns

    return metric_columns(recipe, table, names)


def _identity(recipe: Recipe, name: str) -> dict[str, Any]:
    from mixdpo_ray.scoring.metric_scores import metric_identity

    return metric_identity(recipe, name)


def _own(table: PreparedTable, split: str, column: str) -> NDArray[np.float64]:
    index = table.index(split)
    if column.startswith("score"):
        return np.asarray(table.column(split, column).to_numpy(), np.float64)
    return np.asarray(getattr(index, column), np.float64)
