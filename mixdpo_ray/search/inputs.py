"""What the trials of a study share, made or looked up before the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.evaluation.judged_model import judging_identity
from mixdpo_ray.objectives.step_objective import reads_mismatched
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.measure import read_guard, read_metrics
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.scoring.reference import cover, cover_tokens
from mixdpo_ray.search.space import Space, default_space, with_settings
from mixdpo_ray.search.trial import rung_recipe
from mixdpo_ray.search.trial_judge import judged_names
from mixdpo_ray.tables.mismatched import MISMATCHED
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.metric_names import needs_reference

Tables = Mapping[str, PreparedTable]  # fingerprint of an order -> the table that lies in it


def prepare_all(recipe: Recipe, space: Space) -> dict[str, PreparedTable]:
    """One table, unless the space holds several orders."""
    orders: dict[str, Recipe] = {}
    for one in (recipe, *(with_settings(recipe, point) for point in space.corners("curriculum."))):
        orders.setdefault(fingerprint(one.curriculum.order_identity), one)  # the recipe itself where it is the same
    return {order: prepared_table(one) for order, one in orders.items()}


def cover_all(recipe: Recipe, space: Space, tables: Tables) -> str | None:
    """The reference table with every pair that some trial could compare with it; none where no objective does.

    Which pairs are easy grows as the threshold falls, so the ends of its range decide.
    """
    corners = [with_settings(recipe, point) for point in space.corners()]
    comparing = [one for one in corners if one.needs_reference]
    if not comparing and not any(map(needs_reference, judged_metrics(recipe).values())):
        return None
    folder = None
    for order, table in tables.items():
        needed = {"train": np.zeros(table.rows("train"), np.bool_), "eval": np.ones(table.rows("eval"), np.bool_)}
        for one in comparing:
            if fingerprint(one.curriculum.order_identity) == order:
                job = job_in("", one, table, "")
                hard = job.hard(table)
                needed["train"] |= job.compared(hard)
                if reads_mismatched(one.objective):
                    needed[MISMATCHED] = needed.get(MISMATCHED, np.zeros_like(hard)) | job.compared(hard)
        positions = {split: np.flatnonzero(wanted) for split, wanted in needed.items()}
        folder = cover(recipe, table, positions)
        if any(one.needs_tokens for one in comparing):
            cover_tokens(recipe, table, {split: positions[split] for split in ("train", "eval")})
    return folder


def judged_metrics(recipe: Recipe) -> dict[str, str]:
    """Setting -> the metric of held-out pairs that it names."""
    metrics = read_metrics(recipe.tune.metric)
    named = {"tune.metric" if number == 0 else "the second tune.metric": one.name for number, one in enumerate(metrics)}
    return named | ({"tune.guard": read_guard(recipe.tune.guard).name} if recipe.tune.guard else {})


def identity(recipe: Recipe, tables: Tables) -> dict[str, Any]:
    """What makes trials comparable: another one of these is another study."""
    tune = recipe.to_dict()["tune"]
    return {
        **recipe.training_identity(),
        "tune": {
            **{name: tune[name] for name in ("metric", "guard", "early_stopping")},
            "space": recipe.tune.space or default_space(recipe),
        },
        **({"judge": judging_identity(recipe)} if judged_names(recipe) else {}),
        "workers": recipe.cluster.fewest_workers,
        "prepared": sorted(table.manifest.content_digest for table in tables.values()),
    }


def rung_steps(recipe: Recipe, table: PreparedTable) -> dict[int, int]:
    """Budget -> steps of the recipe's own curriculum; a rung must be worth more than the one before."""
    steps = {}
    for budget in recipe.tune.early_stopping.budgets:
        steps[budget] = job_in("", rung_recipe(recipe, {}, budget), table, "").plan(table).steps
    counts = list(steps.values())
    if len(set(counts)) < len(counts):
        raise RecipeError(
            f"tune.early_stopping.rungs {len(counts)} gives rungs of {', '.join(map(str, counts))} steps: the "
            "curriculum is too short to be thinned so often; lower rungs, or take pruner none"
        )
    return steps
