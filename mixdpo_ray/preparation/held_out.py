"""Held-out pairs where there are none: said where a table is described, refused where a setting cannot do without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixdpo_ray.errors import TooFewPairsError
from mixdpo_ray.pairs.settings import HELD_OUT_SETS
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.metric_names import EDGES, MARGIN_BUCKETS, refuse_unmeasured, set_and_metric


def held_out_text(table: PreparedTable) -> str:
    """How many pairs are held out, in which sets."""
    counts = {name: len(rows) for name, rows in held_out_sets(table).items()}
    sets = ", ".join(f"{name} {count}" for name, count in counts.items() if name != MAIN)
    return f"{counts[MAIN]} held out{f'; held-out sets: {sets}' if sets else ''}"


def lack_of_held_out(recipe: Recipe, table: PreparedTable) -> str | None:
    """Why nothing is held out, or nothing of a set, though the recipe asks for it."""
    heldout, there = recipe.data.heldout, held_out_sets(table)
    if empty := [name for name, rows in there.items() if name != MAIN and not rows]:
        return f"no pair of {HELD_OUT_SETS}.{empty[0]} is left: it has no metrics"
    if there[MAIN] or not heldout.holds_out:
        return None
    if heldout.source is not None:
        return "no pair of data.heldout.source is left: nothing will tell how good the model is"
    return (
        f"no pair is held out, and nothing will tell how good the model is: data.heldout.fraction {heldout.fraction:g} "
        f"of {table.rows('train')} pairs, at most {heldout.max_pairs}, is less than one prompt with all its pairs; "
        "raise it, or give data.heldout.source"
    )


def require_held_out(recipe: Recipe, table: PreparedTable, needing: Mapping[str, str]) -> None:
    """Refuse a table without the held-out pairs that settings need: setting -> the metric that it names, or nothing."""
    there = held_out_sets(table)
    for setting, metric in needing.items():
        positions = there.get(set_and_metric(metric)[0], range(0))
        if not positions and (metric or not table.rows("eval")):
            why = lack_of_held_out(recipe, table) or "data.heldout holds out no pairs: give it a fraction"
            raise TooFewPairsError(f"{setting} needs held-out pairs: {why}")
        bucket = next((number for number, name in enumerate(MARGIN_BUCKETS) if metric.endswith(f"/{name}")), None)
        if bucket is not None and not _holds_pairs(table, positions, bucket):
            raise TooFewPairsError(
                f"{setting} {metric}: no held-out pair has such a margin; take eval_rewards/accuracies"
            )


def check_training_metrics(recipe: Recipe, table: PreparedTable) -> None:
    """What a single training needs held-out pairs for."""
    setting, best = recipe.train.needs_held_out, recipe.train.checkpoints.keep_best or ""
    if setting is not None:
        refuse_unmeasured(setting, best, recipe.needs_reference)
        require_held_out(recipe, table, {setting: best})


def _holds_pairs(table: PreparedTable, positions: range, bucket: int) -> bool:
    margins = table.index("eval").margin[positions.start : positions.stop]
    buckets = np.searchsorted(EDGES, margins, side="right") - 1
    return bool(np.any(np.maximum(buckets, 0) == bucket))
