"""Several raters' ratings are compared within each prompt, never averaged raw."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.rating.combine import agreement, combined, on_one_scale, ties

NONE = np.nan
GROUPS = [slice(0, 3), slice(3, 5)]
JUDGE = np.array([2.0, 4.0, 9.0, 5.0, 7.0])  # deviations -3 -1 4, -1 1: their mean square is 28/5
REWARD = np.array([100.0, 200.0, 600.0, -50.0, -150.0])  # -200 -100 300, 50 -50
SPREAD = np.sqrt(28 / 5)


def test_a_single_rater_keeps_its_scale() -> None:
    found = combined([JUDGE], GROUPS, "mean", "pooled")
    assert found.scores.tolist() == JUDGE.tolist()
    assert found.widths is None


def test_pooled_ratings_keep_how_much_better_an_answer_is_and_z_scores_do_not() -> None:
    assert on_one_scale(JUDGE, GROUPS, "pooled") == pytest.approx(np.array([-3, -1, 4, -1, 1]) / SPREAD)
    scores = on_one_scale(JUDGE, GROUPS, "zscore")
    assert scores == pytest.approx([*(np.array([-3, -1, 4]) / np.sqrt(26 / 3)), -1, 1])
    assert on_one_scale(JUDGE, GROUPS, "rank").tolist() == [0, 0.5, 1, 0, 1]


@pytest.mark.parametrize("scale", ["pooled", "zscore", "rank"])
def test_neither_a_raters_unit_nor_its_origin_changes_anything(scale: str) -> None:
    found = combined([JUDGE, REWARD], GROUPS, "mean", scale)
    other = combined([JUDGE, 1000 * REWARD - 7], GROUPS, "mean", scale)
    assert found.scores == pytest.approx(other.scores)


def test_the_median_follows_the_majority() -> None:
    odd = np.array([9.0, 4.0, 2.0, 7.0, 5.0])
    found = combined([JUDGE, JUDGE, odd], GROUPS, "median", "rank")
    assert found.scores.tolist() == [0, 0.5, 1, 0, 1]
    assert found.widths is not None
    assert found.widths == pytest.approx(
        [np.std([0, 0, 1]), 0, np.std([1, 1, 0]), np.std([0, 0, 1]), np.std([1, 1, 0])]
    )


def test_agreement_leaves_out_prompts_whose_best_and_worst_answers_are_disputed() -> None:
    assert combined([JUDGE, REWARD], GROUPS, "agreement", "pooled").disagree == {1}
    assert combined([JUDGE, REWARD], GROUPS, "mean", "pooled").disagree == frozenset()
    tie = np.array([1.0, 2.0, 3.0, 4.0, 4.0])
    assert combined([JUDGE, tie], GROUPS, "agreement", "pooled").disagree == {1}


def test_an_answer_that_one_rater_has_not_rated_has_no_score() -> None:
    lacks = REWARD.copy()
    lacks[1] = NONE
    found = combined([JUDGE, lacks], GROUPS, "mean", "zscore")
    assert np.isnan(found.scores).tolist() == [False, True, False, False, False]
    assert found.scores[:3:2] == pytest.approx([-1, 1])  # each compared with what both have rated
    nothing = combined([JUDGE, np.full(5, NONE)], GROUPS, "agreement", "pooled")
    assert np.isnan(nothing.scores).all()


def test_ratings_that_all_tie_are_no_error() -> None:
    flat = np.full(5, 3.0)
    for scale in ("pooled", "zscore", "rank"):
        assert len(set(on_one_scale(flat, GROUPS, scale).tolist())) == 1


def test_agreement_of_raters_counts_a_tie_of_one_as_half() -> None:
    """Of four comparisons three are decided alike and one the other way round; then one of them is a tie."""
    found = agreement(JUDGE, REWARD, GROUPS)
    assert (found.pairs, found.accuracy) == (4, 0.75)
    assert -1 <= found.correlation < 1
    tie = np.array([1.0, 2.0, 3.0, 4.0, 4.0])
    assert agreement(JUDGE, tie, GROUPS).accuracy == pytest.approx(3.5 / 4)
    assert agreement(tie, tie, GROUPS).accuracy == 1
    assert agreement(JUDGE, np.full(5, NONE), GROUPS).pairs == 0
    assert ties(tie, GROUPS) == (1, 4)
    assert ties(np.array([1.0, NONE, 1.0, 2.0, 2.0]), GROUPS) == (2, 2)
