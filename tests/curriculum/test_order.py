"""The physical order of a prepared table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixdpo_ray.curriculum.order import Order, curriculum_order, easiest_first, seeded_hashes, swap_tail

law = settings(deadline=None, derandomize=True, max_examples=60)
ORDERS: tuple[Order, ...] = get_args(Order)
half_points = st.lists(st.integers(0, 18).map(lambda steps: steps / 2), min_size=1, max_size=60)


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]


def ordered(margins: Sequence[float], order: Order = "descending", seed: int = 42, swap: float = 0.0) -> list[int]:
    return list(map(int, curriculum_order(np.array(margins), ids(len(margins)), order, seed, swap)))


def test_larger_margins_come_first() -> None:
    assert ordered([1.5, 0.0, 5.0, 1.0]) == [2, 0, 3, 1]
    assert ordered([1.5, 0.0, 5.0, 1.0], "ascending") == [1, 3, 0, 2]


@law
@given(margins=half_points, seed=st.integers(0, 2**64))
def test_every_order_holds_every_row_once_and_the_sorted_ones_are_sorted(margins: list[float], seed: int) -> None:
    for order in ORDERS:
        assert sorted(ordered(margins, order, seed)) == list(range(len(margins)))
    assert [margins[row] for row in ordered(margins, "descending", seed)] == sorted(margins, reverse=True)
    assert ordered(margins, "ascending", seed) == ordered(margins, "descending", seed)[::-1]


@law
@given(margins=half_points, shuffle=st.randoms(use_true_random=False), order=st.sampled_from(ORDERS))
def test_the_order_of_the_rows_in_their_files_does_not_matter(
    margins: list[float], shuffle: Random, order: Order
) -> None:
    """Compared by content: the same pair ids in the same places after the rows were dealt anew."""
    rows = list(range(len(margins)))
    shuffle.shuffle(rows)
    names = ids(len(margins))
    dealt = curriculum_order(np.array(margins)[rows], [names[row] for row in rows], order, 7)
    assert [names[rows[place]] for place in dealt] == [names[row] for row in ordered(margins, order, 7)]


def test_ties_are_broken_by_chance_and_each_seed_is_another_chance() -> None:
    """Forty equal margins: by id, by row or by the seed's neighbour would be no chance."""
    ties = [0.5] * 40
    orders = {tuple(ordered(ties, seed=seed)) for seed in (1, 2, 3, 2**63)}
    assert len(orders) == 4
    assert tuple(range(40)) not in orders
    assert tuple(np.argsort(ids(40)).tolist()) not in orders


def test_shuffling_is_not_the_order_in_which_ties_are_broken() -> None:
    assert ordered([0.5] * 40, "shuffled") != ordered([0.5] * 40, "descending")


def test_shuffling_ignores_the_margins() -> None:
    assert ordered([0.5] * 40, "shuffled") == ordered(list(range(40)), "shuffled")


def test_hashes_spread_evenly_over_64_bits() -> None:
    """20,000 of them: the mean lies within five standard errors of a half, and no two are equal."""
    hashes = seeded_hashes(ids(20_000), 42)
    assert len(np.unique(hashes)) == 20_000
    assert abs((hashes / 2**64).mean() - 0.5) < 5 * (1 / 12 / 20_000) ** 0.5
    assert seeded_hashes([], 42).tolist() == []


def test_swap_exchanges_the_last_two_tenths() -> None:
    """The paper's appendix B.6: of 20 pairs, positions 0-15, 18, 19, 16, 17."""
    margins = list(range(20, 0, -1))
    assert ordered(margins, swap=0.1) == [*range(16), 18, 19, 16, 17]
    assert ordered(margins, "ascending", swap=0.1) == [17, 16, 19, 18, *range(15, -1, -1)]
    assert swap_tail(np.arange(20), 0.0).tolist() == list(range(20))
    assert swap_tail(np.arange(4), 0.5).tolist() == [2, 3, 0, 1]


@law
@example(rows=7, fraction=0.5)
@given(rows=st.integers(0, 50), fraction=st.floats(0, 0.5))
def test_swap_loses_and_repeats_no_row(rows: int, fraction: float) -> None:
    """Half of an odd number rounds up, and two blocks of it would be longer than the table."""
    assert sorted(swap_tail(np.arange(rows), fraction).tolist()) == list(range(rows))


def test_a_missing_difficulty_is_never_sorted() -> None:
    with pytest.raises(AssertionError, match="difficulty must be finite"):
        easiest_first(np.array([1.0, np.nan]), ids(2), 42)
