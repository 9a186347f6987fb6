"""Intervals of a few seeds and of held-out pairs, against printed tables, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixdpo_ray.intervals import Estimate, Kind, t95, t_below, t_quantile, wilson


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


def test_equal_seeds_tell_no_error() -> None:
    assert Estimate.of([2.0, 2.0]).half == math.inf
    assert not Estimate.of([0.1 + 0.2, 0.3]).excludes_zero  # they differ in their last bits


def test_an_interval_over_seeds_and_pairs_by_hand() -> None:
    """Means of the seeds 1.5 and 2.5, of the pairs 1.5, 2.0 and 2.5: V_s = 0.5 / 2, V_p = 0.25 / 3."""
    estimate = Estimate.crossed(np.array([[1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]), "number")
    assert (estimate.mean, estimate.count, estimate.pairs, estimate.complete) == (2.0, 2, 3, True)
    assert estimate.half == pytest.approx(math.sqrt(t95(1) ** 2 * 0.25 + t95(2) ** 2 * 0.25 / 3))


def test_fifteen_right_answers_of_fifteen_are_not_certain() -> None:
    """Four more, two of them wrong: 17 of 19, and the interval reaches below by 1 - 17/19 and the half."""
    estimate = Estimate.crossed(np.ones((2, 15)), "share")
    share = 17 / 19
    assert estimate.half == pytest.approx(1 - share + t95(14) * math.sqrt(share * (1 - share) / 19))
    assert wilson(1.0, 15)[0] > estimate.low


def test_no_difference_on_any_pair_is_not_certain_either() -> None:
    estimate = Estimate.crossed(np.zeros((3, 20)), "difference of shares")
    assert estimate.half == pytest.approx(t95(19) * math.sqrt(2 / 22 / 22))
    assert not Estimate.crossed(np.zeros((3, 20)), "number").excludes_zero


def test_one_seed_or_one_pair_says_less_than_it_should() -> None:
    one = Estimate.crossed(np.array([[5.0, 5.1, 4.9]]), "number")
    assert one.low > 0
    assert not one.excludes_zero
    assert Estimate.crossed(np.array([[1.0], [1.0]]), "share").half == math.inf


def simulated(seeds: int, pairs: int, by_seed: float, by_rest: float, kind: Kind, draw: np.random.Generator) -> bool:
    """Whether the interval holds the truth: two arms whose answers depend on the pair, the seed and the rest."""
    better = (0.5, 0.2) if kind == "difference of shares" else (1.3,)
    spread = math.sqrt(1 + 0.5**2 + by_seed**2 + by_rest**2)
    truths = [0.5 + math.erf(one / spread / math.sqrt(2)) / 2 for one in better]
    of_pair = draw.normal(0, 1, pairs)
    answers = [
        one
        + of_pair
        + draw.normal(0, 0.5, pairs)
        + draw.normal(0, by_seed, (seeds, 1))
        + draw.normal(0, by_rest, (seeds, pairs))
        > 0
        for one in better
    ]
    values, truth = answers[0].astype(float), truths[0]
    if kind == "difference of shares":
        values, truth = values - answers[1], truths[0] - truths[1]
    estimate = Estimate.crossed(values, kind)
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("kind", ["share", "difference of shares"])
@pytest.mark.parametrize(("by_seed", "by_rest"), [(0.0, 1e-6), (0.15, 0.3), (0.4, 0.3)], ids=["same", "some", "much"])
def test_intervals_over_seeds_and_pairs_hold_the_truth(kind: Kind, by_seed: float, by_rest: float) -> None:
    """Where seeds change nothing, something and much: 93 times in 100 or more at every size that people have."""
    draw = np.random.default_rng(0)
    sizes = [(2, 15), (2, 100), (2, 500), (3, 40), (5, 15), (5, 500)]
    held = [simulated(*size, by_seed, by_rest, kind, draw) for size in sizes for _ in range(800)]
    assert np.mean(held) > 0.945
    assert min(np.mean(np.reshape(held, (len(sizes), -1)), axis=1)) > 0.93  # 800 of 95 %: a standard error of 0.008
