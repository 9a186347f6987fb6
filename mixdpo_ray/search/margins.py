"""Thresholds worth trying are margins that occur: between two of them nothing changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.ranges import Choice, Interval, Margins, Range
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.space import THRESHOLD, Space, with_settings

AT_MOST = 16  # thresholds to choose from; of continuous margins those at even shares of hard pairs


def resolve(space: Space, recipe: Recipe, margins: NDArray[np.float64]) -> Space:
    """The space once the prepared data are known. A threshold that leaves no easy pair is refused."""
    for knob in space.knobs:
        if isinstance(knob.range, Margins):
            grid = thresholds(margins, recipe.curriculum.threshold, knob.range.hard_share)
            space = space.with_range(knob.setting, _range(grid, knob.range))
    for point in space.corners("curriculum."):
        _check(recipe, point, margins)
    return space


def thresholds(margins: NDArray[np.float64], rule: Threshold, hard_share: float) -> list[float]:
    """Margins of the data, ascending, that as thresholds leave at most this share of the pairs hard."""
    found = np.unique(np.round(margins, 9))
    values = {float(value): _hard(margins, rule, float(value)) for value in found}
    kept = [value for value, hard in values.items() if hard <= hard_share * len(margins) and hard < len(margins)]
    if len(kept) <= AT_MOST:
        return kept
    targets = np.linspace(values[kept[0]], values[kept[-1]], AT_MOST)
    hards = np.array([values[value] for value in kept])
    return [kept[number] for number in np.unique(np.abs(hards[:, None] - targets).argmin(0))]


def _hard(margins: NDArray[np.float64], rule: Threshold, value: float) -> int:
    return Threshold(value=value, tie_rule=rule.tie_rule).hard_pairs(margins)


def _range(grid: list[float], asked: Margins) -> Range:
    if len(grid) < 2:
        raise RecipeError(
            f"tune.space.{THRESHOLD[0]}: margins {asked.hard_share:g} leaves {grid or 'no threshold'}: raise the "
            "share, or take the setting out of the space"
        )
    even = Interval(grid[0], grid[-1], step=round(grid[1] - grid[0], 9))
    return even if even.values() == tuple(grid) else Choice(tuple(grid))  # a sampler can use the order of an even grid


def _check(recipe: Recipe, point: dict[str, object], margins: NDArray[np.float64]) -> None:
    curriculum = with_settings(recipe, point).curriculum
    if curriculum.mode == "sorted_dpo" or not any(setting in point for setting in THRESHOLD):
        return
    setting = next(setting for setting in THRESHOLD if setting in point)
    if max(curriculum.threshold.hard_count or 0, curriculum.threshold.hard_pairs(margins)) >= len(margins):
        raise RecipeError(
            f"tune.space.{setting}: {point[setting]} leaves none of the {len(margins)} pairs easy (the margins end at "
            f"{margins.max():g}): lower its end"
        )
