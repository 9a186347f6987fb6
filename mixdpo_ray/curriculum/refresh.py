"""Steps before which the reference becomes the policy of that moment, by arithmetic on the plan.

The reference of a pair is needed once a bucket: between two of these steps. So a pass over the pairs of the bucket that
begins is all that a refresh takes, and those of later buckets need no reference from before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.plan import Plan, Segment, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings, PerBucket
from mixdpo_ray.errors import RecipeError


def refresh_steps(settings: CurriculumSettings, plan: Plan, compared: NDArray[np.bool_]) -> tuple[int, ...]:
    """Ascending, and never the first step. `compared`: over positions, whether a pair meets the reference."""
    found, step = [], 0
    for number, segment in enumerate(plan.segments):
        before = plan.segments[number - 1] if number else None
        if settings.refresh_reference is not None and compared[_pairs(segment, len(compared))].any():
            found += [step + first for first in _beginnings(settings, segment, before)]
        step += len(segment.windows)
    return tuple(step for step in found if step)


def never_refreshes(settings: CurriculumSettings, epochs: int, *, easy: bool, hard: bool) -> bool:
    """Whether no stage that would refresh ever comes. `easy`, `hard`: whether such pairs meet the reference."""
    hard_pairs = np.array([settings.order == "ascending", settings.order != "ascending"])
    hard_pairs &= settings.mode != "sorted_dpo"
    whole = settings.model_copy(update={"refresh_reference": "per_stage"})
    return not refresh_steps(whole, make_plan(whole, hard_pairs, 1, epochs), np.where(hard_pairs, hard, easy))


def _beginnings(settings: CurriculumSettings, segment: Segment, before: Segment | None) -> list[int]:
    """Numbers of windows of a pass that begin a bucket."""
    begins_stage = before is None or before.phase != segment.phase or settings.epoch_order == "curriculum_major"
    if not isinstance(settings.refresh_reference, PerBucket):
        return [0] if begins_stage else []
    if segment.stage == "hard":
        return [0]
    windows, buckets = len(segment.windows), settings.refresh_reference.per_bucket
    if settings.thin > 1:
        buckets = min(buckets, windows)  # a rung of a search has fewer steps than what it stands for
    if windows < buckets:
        raise RecipeError(
            f"curriculum.refresh_reference.per_bucket {buckets} cuts the {segment.stage} stage, which has {windows} "
            f"steps: give at most {windows}, or a smaller train.global_batch_size"
        )
    return [windows * number // buckets for number in range(buckets)]


def _pairs(segment: Segment, pairs: int) -> slice | NDArray[np.int64]:
    """The positions of a pass without rows of data.sft, which lie behind the pairs."""
    positions = segment.positions
    return slice(positions.start, positions.stop) if isinstance(positions, range) else positions[positions < pairs]
