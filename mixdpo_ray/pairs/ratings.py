"""Answers and their ratings, as far as a source's numbers can be trusted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


@dataclass(frozen=True)
class RatedAnswer:
    text: Any
    score: Any
    ratings: Any = None  # of each of several raters, by name


def overall_score(completion: Mapping[str, Any]) -> Any:
    """UltraFeedback's overall score, or None where it cannot be trusted.

    The critic's rating 1 was read as 10 in many of 2,628 completions. The four aspects were rated apart from it, from 1
    to 5, so a 10 is compared with their mean, by the bounds of the upstream repair: up to 2 it was a 1, above 4 it is a
    10. In between upstream asked the critic again; without a critic the answer counts as unrated.
    """
    score = completion.get("overall_score")
    if score != 10:
        return score
    aspects = mean_aspect(completion)
    if aspects is None or 2 < aspects <= 4:
        return None
    return 1.0 if aspects <= 2 else score


def mean_aspect(completion: Mapping[str, Any]) -> float | None:
    """Mean of the aspects that were rated ("N/A" ones are left out), else the source's own fine-grained score."""
    annotations = completion.get("annotations")
    ratings = [_rating(annotations.get(aspect)) for aspect in ASPECTS] if isinstance(annotations, Mapping) else []
    rated = [rating for rating in ratings if rating is not None]
    if rated:
        return sum(rated) / len(rated)
    fine_grained = completion.get("fine-grained_score")
    return float(fine_grained) if is_number(fine_grained) else None


def _rating(annotation: Any) -> float | None:
    rating = annotation.get("Rating") if isinstance(annotation, Mapping) else None
    return float(rating) if isinstance(rating, str) and rating.strip().isdecimal() else None


def is_number(value: Any) -> TypeGuard[float]:
    """Finite, and an integer only if a float can hold it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
