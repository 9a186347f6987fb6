"""Which positions of a prepared table are hard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import easiest_first
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import RecipeError

USUAL_SHARES = (0.01, 0.5)  # of hard pairs, where the threshold is the default: an eighth in the data it was made for


def doubt_of_threshold(settings: CurriculumSettings, hard: int, difficulty: NDArray[np.float64]) -> str | None:
    """What it means that no pair is hard, or every one, or that a threshold nobody chose makes far too few or many.

    Nothing where a person asked for just that.
    """
    threshold, rows = settings.threshold, len(difficulty)
    asked = threshold.hard_fraction in (0.0, 1.0) or threshold.hard_count in (0, rows)
    if settings.mode == "sorted_dpo" or asked or not rows:
        return None
    if 0 < hard < rows:
        return None if threshold.given else _unusual_share(hard, rows)
    discards, by = settings.mode == "discard_hard", "SFT" if settings.hard_objective is None else "hard_objective"
    if hard:
        count, what = f"all {rows}", "trains no pair" if discards else f"trains all by {by}, none by the objective"
    else:
        count, what = (
            f"none of {rows}",
            "leaves none out" if discards else f"trains all by the objective, none by {by}",
        )
    low, high = float(difficulty.min()), float(difficulty.max())
    values, remedy = f"they go from {low:.4g} to {high:.4g}", "choose one in between"
    if low == high:
        values, remedy = f"all are {low:.4g}", "give threshold.hard_fraction, or another curriculum.difficulty"
    default = "" if threshold.given else " (the default)"
    return (
        f"curriculum.threshold {threshold}{default} makes {count} pairs hard by {settings.difficulty} ({values}), so "
        f"mode {settings.mode} {what}: {remedy}"
    )


def _unusual_share(hard: int, rows: int) -> str | None:
    fewest, most = USUAL_SHARES
    if fewest <= hard / rows <= most:
        return None
    return (
        f"curriculum.threshold is not given, and its default 0.5, made for ratings from 1 to 10, makes {hard} of "
        f"{rows} pairs hard ({hard / rows:.1%}): give one that suits your ratings, or threshold.hard_fraction=0.12"
    )


def hard_positions(
    settings: CurriculumSettings, difficulty: NDArray[np.float64], pair_ids: Sequence[str]
) -> NDArray[np.bool_]:
    """A mask over positions [rows]. `difficulty` and `pair_ids` are in the table's physical order."""
    rows = len(difficulty)
    hard = np.zeros(rows, np.bool_)
    if settings.mode == "sorted_dpo":
        return hard
    if (settings.threshold.hard_count or 0) > rows:
        raise RecipeError(
            f"curriculum.threshold.hard_count={settings.threshold.hard_count} asks for more hard pairs than the "
            f"{rows} that there are; choose a smaller count, or hard_fraction=1.0 to train every pair by SFT"
        )
    count = settings.threshold.hard_pairs(difficulty)
    if settings.physical_order == "shuffled":
        hard[easiest_first(difficulty, pair_ids, settings.seed)[rows - count :]] = True
    elif settings.physical_order == "ascending":
        hard[:count] = True
    else:  # by position, also after a swap: the swapped block changes sides (appendix B.6)
        hard[rows - count :] = True
    return hard
