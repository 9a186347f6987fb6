"""Inputs that a formula alone has no number for."""

from __future__ import annotations

from mixdpo_ray.objectives import OBJECTIVES
from tests.objectives.test_laws import losses_of, pairs_of


def test_a_target_that_would_grow_without_bound_is_cut() -> None:
    """Gaps 900, 900 and -900 have mean 300 and deviation 1039: the last exponent would be 1200 / 1039 x 300 = 346."""
    rows = [(-100.0, -1000.0, 1, 1, 1.5), (-100.0, -1000.0, 1, 1, 1.5), (-1000.0, -100.0, 1, 1, 1.5)]
    assert losses_of(OBJECTIVES["amapo"](), pairs_of(rows)).isfinite().all()


def test_a_margin_below_0_has_no_logarithm_and_yet_a_loss() -> None:
    pairs = pairs_of([(-12.5, -14.0, 10, 14, -0.5, -13.0, -13.2)])
    assert OBJECTIVES["odpo"]().losses(pairs).isfinite().all()
