"""Which pairs are hard: the threshold's rules, and the positions they lead to in every order."""

from __future__ import annotations

import hashlib
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from mixdpo_ray.curriculum.order import curriculum_order
from mixdpo_ray.curriculum.routing import hard_positions
from mixdpo_ray.curriculum.settings import CurriculumSettings, Mode
from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.errors import RecipeError

MARGINS = np.array([0.0, 5.0, 0.5, 1.0, 0.0, 0.5, 9.0, 1.5, 0.0, 2.0])


def hard_pairs(margins: list[float], **threshold: Any) -> int:
    return Threshold(**threshold).hard_pairs(np.array(margins))


def prepared(**settings: Any) -> tuple[list[float], list[str], list[bool]]:
    """Margins and pair ids in the table's physical order, and the mask of hard positions."""
    curriculum = CurriculumSettings(**settings)
    names = [hashlib.sha256(str(row).encode()).hexdigest()[:32] for row in range(len(MARGINS))]
    order = curriculum_order(MARGINS, names, curriculum.physical_order, curriculum.seed, curriculum.swap_fraction)
    placed = [names[row] for row in order]
    return MARGINS[order].tolist(), placed, hard_positions(curriculum, MARGINS[order], placed).tolist()


def test_a_margin_equal_to_the_threshold_is_easy_under_lt_and_hard_under_le() -> None:
    assert hard_pairs([0.0, 0.5, 1.0], value=0.5, tie_rule="lt") == 1
    assert hard_pairs([0.0, 0.5, 1.0], value=0.5, tie_rule="le") == 2


def test_without_a_rule_the_threshold_is_the_papers_half_point_under_lt() -> None:
    assert hard_pairs([0.0, 0.49, 0.5, 1.0]) == 2
    assert hard_pairs([0.0, 0.5, 1.0], tie_rule="le") == 2


def test_averaged_ratings_that_miss_the_threshold_by_rounding_count_as_equal_to_it() -> None:
    """0.1 + 0.2 + 0.2 and 0.8 - 0.3 are not exactly 0.5 in binary."""
    almost = [0.1 + 0.2 + 0.2 - 1e-12, 0.8 - 0.3 + 1e-12, 0.5]
    assert hard_pairs(almost, value=0.5, tie_rule="lt") == 0
    assert hard_pairs(almost, value=0.5, tie_rule="le") == 3
    assert hard_pairs([0.5 - 1e-6], value=0.5, tie_rule="lt") == 1


def test_a_count_or_a_fraction_cuts_by_rank() -> None:
    assert hard_pairs([1.0] * 20, hard_count=7) == 7
    assert hard_pairs([1.0] * 20, hard_count=0) == 0
    assert hard_pairs([1.0] * 20, hard_fraction=0.1) == 2
    assert hard_pairs([1.0] * 20, hard_fraction=1.0) == 20
    assert hard_pairs([1.0] * 61_135, hard_fraction=0.12083) == 7387


def test_a_missing_margin_is_never_routed() -> None:
    with pytest.raises(AssertionError, match="neither easy nor hard"):
        hard_pairs([1.0, np.nan])


@pytest.mark.parametrize(
    "threshold",
    [
        {"value": 0.5, "hard_count": 3},
        {"hard_count": 3, "hard_fraction": 0.1},
        {"hard_count": -1},
        {"hard_fraction": 1.1},
        {"value": float("nan")},
        {"tie_rule": "ge"},
        {"margin": 0.5},
    ],
    ids=str,
)
def test_thresholds_that_make_no_sense_are_refused(threshold: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Threshold(**threshold)


def test_in_descending_order_the_last_positions_are_hard() -> None:
    margins, _, hard = prepared()
    assert margins == [9.0, 5.0, 2.0, 1.5, 1.0, 0.5, 0.5, 0.0, 0.0, 0.0]
    assert hard == [False] * 7 + [True] * 3


def test_in_ascending_order_the_first_positions_are_hard() -> None:
    margins, _, hard = prepared(order="ascending", threshold={"value": 0.5, "tie_rule": "le"})
    assert margins == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.5, 2.0, 5.0, 9.0]
    assert hard == [True] * 5 + [False] * 5


@pytest.mark.parametrize("settings", [{"order": "shuffled"}, {"mode": "router_shuffled"}], ids=str)
def test_when_shuffled_the_hard_positions_are_those_of_small_margins(settings: dict[str, Any]) -> None:
    margins, _, hard = prepared(**settings)
    assert margins != sorted(margins, reverse=True)
    assert hard == [margin < 0.5 for margin in margins]


def test_after_a_swap_hard_means_last_and_not_smallest() -> None:
    """Blocks of 2: the margins of 0.0 that were last now close the easy stage (appendix B.6)."""
    margins, _, hard = prepared(swap_fraction=0.2, threshold={"hard_fraction": 0.2})
    assert margins == [9.0, 5.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0, 0.5, 0.0]
    assert hard == [False] * 8 + [True] * 2
    backwards, _, first = prepared(swap_fraction=0.2, threshold={"hard_fraction": 0.2}, order="ascending")
    assert backwards == margins[::-1]
    assert first == hard[::-1]


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("order", ["descending", "ascending", "shuffled"])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 10])
def test_a_rank_cut_inside_a_group_of_ties_picks_the_same_pairs_in_every_mode_and_order(
    mode: Mode, order: str, count: int
) -> None:
    """An ablation compares the same hard pairs: three margins of 0.0 and two of 0.5 tie here, and the seed decides."""
    if mode == "router_shuffled":
        order = "shuffled"
    _, names, hard = prepared(mode=mode, order=order, threshold={"hard_count": count})
    _, reference_names, reference = prepared(threshold={"hard_count": count})
    expected = {name for name, is_hard in zip(reference_names, reference, strict=True) if is_hard}
    assert len(expected) == count
    picked = {name for name, is_hard in zip(names, hard, strict=True) if is_hard}
    assert picked == (set() if mode == "sorted_dpo" else expected)


def test_more_hard_pairs_than_there_are_pairs_is_refused_with_both_numbers() -> None:
    with pytest.raises(RecipeError, match=r"hard_count=11 .* 10 that there are"):
        prepared(threshold={"hard_count": 11})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "router_shuffled", "order": "ascending"}, "draws at random"),
        ({"mode": "router_shuffled", "swap_fraction": 0.1}, "no meaning when shuffled"),
        ({"order": "shuffled", "swap_fraction": 0.1}, "no meaning when shuffled"),
        ({"swap_fraction": 0.6}, "less than or equal to 0.5"),
        ({"thin": 0}, "greater than or equal to 1"),
        ({"sft_weight": -1}, "greater than or equal to 0"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"stages": 2}, "Extra inputs"),
    ],
    ids=str,
)
def test_curricula_that_cannot_work_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        CurriculumSettings(**settings)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_sft_is_a_token_mean_in_two_stages_and_an_example_mean_beside_easy_pairs(mode: Mode) -> None:
    expected = "token_mean" if mode == "two_stage" else "example_mean"
    assert CurriculumSettings(mode=mode).sft_normalisation == expected
    assert CurriculumSettings(mode=mode, sft_norm="example_sum").sft_normalisation == "example_sum"
