"""The columns that pairs are ordered and selected by: those of the prepared table, and those that were computed.

Only for the latter is metric_scores imported, which brings torch and Ray Train.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.table_columns import TableColumn
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import SPLITS, PreparedTable

if TYPE_CHECKING:
    from mixdpo_ray.scoring.metric_scores import ScoreColumns


def computed_columns(recipe: Recipe, table: PreparedTable, names: Iterable[str]) -> ScoreColumns:
    """Values of metrics as people know them: those of the table by themselves, computed ones with higher as easier."""
    names = list(dict.fromkeys(names))
    own: ScoreColumns = {
        name: {split: table.numbers(split, column) for split in SPLITS}
        for name in names
        if (column := _column_of(name)) is not None
    }
    return own | _computed(recipe, table, [name for name in names if name not in own])


def metric_identities(recipe: Recipe) -> dict[str, Any]:
    """What the values of the metrics that a recipe orders and selects by depend on, beyond the pairs themselves."""
    return {name: None if _column_of(name) else _identity(recipe, name) for name in recipe.metrics_used}


def _column_of(name: str) -> str | None:
    """The table's column that a metric is; None where it is computed, and where there is no such metric."""
    kind = METRICS.get(name)
    return kind.column if kind is not None and issubclass(kind, TableColumn) else None


def _computed(recipe: Recipe, table: PreparedTable, names: list[str]) -> ScoreColumns:
    if not names:
        return {}
    from mixdpo_ray.scoring.metric_scores import metric_columns

    return metric_columns(recipe, table, names)


def _identity(recipe: Recipe, name: str) -> dict[str, Any]:
    from mixdpo_ray.scoring.metric_scores import metric_identity

    return metric_identity(recipe, name)
