"""A threshold that leaves a stage empty is told with the count, unless a person asked for just that."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.curriculum.routing import doubt_of_threshold
from mixdpo_ray.curriculum.settings import CurriculumSettings

MARGINS = np.array([4.0, 2.0, 0.5])


@pytest.mark.parametrize(
    ("settings", "hard", "expected"),
    [
        (
            {"threshold": {"value": 99}},
            3,
            "curriculum.threshold 99 makes all 3 pairs hard by rating_margin (they go from 0.5 to 4), so mode "
            "two_stage trains all by SFT, none by the objective: choose one in between",
        ),
        ({"threshold": {"value": 0.1}}, 0, "so mode two_stage trains all by the objective, none by SFT"),
        ({"threshold": {"value": 99}, "mode": "discard_hard"}, 3, "so mode discard_hard trains no pair"),
        ({"mode": "discard_hard"}, 0, "so mode discard_hard leaves none out"),
        ({}, 0, "curriculum.threshold 0.5 (the default) makes none of 3 pairs hard by rating_margin"),
        (
            {"threshold": {"hard_fraction": 0.01}},
            0,
            "curriculum.threshold hard_fraction=0.01 makes none of 3",
        ),
    ],
)
def test_it_is_told(settings: dict[str, object], hard: int, expected: str) -> None:
    said = doubt_of_threshold(CurriculumSettings.model_validate(settings), hard, MARGINS)
    assert said is not None
    assert expected in said


def test_where_all_pairs_are_alike_no_threshold_is_advised() -> None:
    said = doubt_of_threshold(CurriculumSettings(), 3, np.zeros(3))
    assert said is not None
    assert said.endswith(": give threshold.hard_fraction, or another curriculum.difficulty")


@pytest.mark.parametrize(("hard", "doubted"), [(9, True), (10, False), (120, False), (500, False), (501, True)])
def test_a_default_that_makes_far_too_few_or_many_pairs_hard_is_told_and_a_choice_is_not(
    hard: int, doubted: bool
) -> None:
    margins = np.linspace(0, 1, 1000)
    said = doubt_of_threshold(CurriculumSettings(), hard, margins)
    assert (said is not None) == doubted
    assert not doubted or "is not given, and its default 0.5, made for ratings from 1 to 10, makes" in str(said)
    chosen = CurriculumSettings.model_validate({"threshold": {"value": 0.5}})
    assert doubt_of_threshold(chosen, hard, margins) is None


@pytest.mark.parametrize(
    ("settings", "hard"),
    [
        ({}, 1),
        ({"mode": "sorted_dpo"}, 0),
        ({"threshold": {"hard_fraction": 1.0}}, 3),
        ({"threshold": {"hard_fraction": 0.0}}, 0),
        ({"threshold": {"hard_count": 3}}, 3),
        ({"threshold": {"hard_count": 0}}, 0),
    ],
)
def test_nothing_is_told(settings: dict[str, object], hard: int) -> None:
    assert doubt_of_threshold(CurriculumSettings.model_validate(settings), hard, MARGINS) is None
