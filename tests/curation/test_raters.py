"""Several raters: agreement on an order, width, and how often one of them errs."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.curation.raters import Raters, majority_error, unanimous_error

MARGINS = np.array([[1.0, 2.0, 0.5], [1.0, -2.0, -0.5], [0.0, 1.0, np.nan], [-1.0, -1.0, 3.0]])


def test_raters_disagree_where_one_is_for_and_one_against() -> None:
    raters = Raters(MARGINS)
    assert raters.disagree.tolist() == [False, True, False, True], "a tie and a missing rating speak for nobody"
    assert raters.against.tolist() == [False, True, False, True]


def test_the_width_is_the_spread_of_margins() -> None:
    width = Raters(MARGINS).width
    assert width[0] == pytest.approx(np.std([1, 2, 0.5]))
    assert width[2] == pytest.approx(0.5)


def test_raters_of_other_scales_weigh_the_same() -> None:
    raters = Raters.of(np.array([[1.0, 100.0], [-1.0, -100.0]]))
    assert raters.margins == pytest.approx(np.array([[50.5, 50.5], [-50.5, -50.5]]))
    assert raters.width == pytest.approx([0.0, 0.0])


def test_the_error_of_one_rater_follows_from_how_often_two_disagree() -> None:
    draw = np.random.default_rng(0)
    signs = np.where(draw.random((20_000, 3)) < 0.15, -1.0, 1.0)
    assert Raters(signs).error_rate == pytest.approx(0.15, abs=0.01)
    wrong = (signs < 0).sum(1)
    assert majority_error(0.15, 3) == pytest.approx((wrong >= 2).mean(), abs=0.01)
    unanimous = np.isin(wrong, (0, 3))
    assert unanimous_error(0.15, 3) == pytest.approx((wrong[unanimous] == 3).mean(), abs=0.005)


def test_two_raters_that_draw_say_nothing() -> None:
    assert majority_error(0.1, 2) == pytest.approx(0.1)
