"""Intervals of a few seeds, against printed tables and by hand."""

from __future__ import annotations

import math

import pytest

from mixdpo_ray.comparison.student import Estimate, t_below, t_quantile


@pytest.mark.parametrize(
    ("freedom", "two_sided_95"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_are_those_of_printed_tables(freedom: int, two_sided_95: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(two_sided_95, abs=5e-4)


def test_one_degree_of_freedom_is_the_cauchy_distribution_and_two_have_a_formula() -> None:
    """F(t) = 1/2 + atan(t) / pi, and 1/2 + t / (2 sqrt(2 + t^2))."""
    for t in (0.0, 0.5, 1.0, 7.0):
        assert t_below(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
        assert t_below(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)


def test_an_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, so half = 4.303 / sqrt(3)."""
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.count) == (2.0, 3)
    assert estimate.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert not estimate.excludes_zero
    assert Estimate.of([1.9, 2.0, 2.1]).excludes_zero
    assert Estimate.of([-1.9, -2.0, -2.1]).excludes_zero


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert Estimate.of([1.5]) == Estimate(1.5, math.inf, 1)
    assert not Estimate.of([1.5]).excludes_zero
    assert math.isnan(Estimate.of([]).mean)
    assert not Estimate.of([]).excludes_zero


def test_nineteen_of_twenty_intervals_hold_the_mean() -> None:
    """Of 2,000 samples of five normal numbers; the normal distribution's 1.96 would hold it 88 times in 100."""
    import random

    draw = random.Random(0)
    samples = [[draw.gauss(3.0, 2.0) for _ in range(5)] for _ in range(2000)]
    held = sum(estimate.low < 3.0 < estimate.high for estimate in map(Estimate.of, samples))
    assert 0.935 < held / len(samples) < 0.965
