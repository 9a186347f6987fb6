"""PerpCorrect's mixture: the worked numbers, the fit, and which pairs join the trusted ones."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.curation.mixture import Mixture, fit_mixture, trusted_next

WORKED = Mixture(mean=-0.6, deviation=0.5, right=0.8)


def test_the_worked_numbers() -> None:
    assert WORKED.threshold == pytest.approx(0.288811, abs=1e-6)
    assert WORKED.separation == pytest.approx(0.916444, abs=1e-6)
    assert WORKED.flipped(np.array([0.5])) == pytest.approx([0.733745], abs=1e-6)
    assert WORKED.noise_rate == pytest.approx(0.2)


def test_at_the_threshold_either_is_as_likely() -> None:
    assert WORKED.flipped(np.array([WORKED.threshold])) == pytest.approx([0.5])


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_fit_finds_what_was_drawn(share: float) -> None:
    draw = np.random.default_rng(0)
    flipped = draw.random(20_000) < share
    found = fit_mixture(np.where(flipped, 0.6, -0.6) + 0.4 * draw.standard_normal(20_000))
    assert found.mean == pytest.approx(-0.6, abs=0.02)
    assert found.deviation == pytest.approx(0.4, abs=0.02)
    assert found.noise_rate == pytest.approx(share, abs=0.015)


def test_a_fit_of_equal_numbers_is_one() -> None:
    found = fit_mixture(np.full(50, -0.3))
    assert found.noise_rate < 0.01
    assert np.isfinite([found.threshold, found.separation]).all()


def test_the_clearest_pairs_of_either_kind_join_the_trusted_ones() -> None:
    x = np.array([0.1, -2.0, 3.0, -1.0, 2.0, -3.0, 0.0, -0.5, 0.2, 0.3])
    as_they_are, turned = trusted_next(x, right=0.75, share=0.4)
    assert (as_they_are.tolist(), turned.tolist()) == ([5, 1, 3], [2])
