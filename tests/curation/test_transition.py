"""The transition matrix from neighbours: the worked numbers, what is solved of them, and why a copy is no neighbour."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.curation.transition import (
    Transition,
    consensus_among,
    consensus_of,
    estimate_transition,
    fit_transition,
    named,
    wrong_shares,
)

WORKED = Transition(np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.2, 0.75]]), np.array([0.2, 0.3, 0.5]))


def test_the_shares_of_worked_numbers() -> None:
    shares = consensus_of(WORKED)
    assert shares.one == pytest.approx([0.215, 0.37, 0.415])
    assert np.diag(shares.two) == pytest.approx([0.13225, 0.2165, 0.28475])
    assert shares.two[0, 1] == pytest.approx(0.053)
    assert shares.three[range(3), range(3), range(3)] == pytest.approx([0.1027625, 0.158275, 0.2112625])
    assert shares.three.sum(2) == pytest.approx(shares.two)


def test_solving_the_worked_shares_gives_the_matrix_back() -> None:
    found = fit_transition(consensus_of(WORKED))
    assert found.matrix == pytest.approx(WORKED.matrix, abs=1e-3)
    assert found.prior == pytest.approx(WORKED.prior, abs=1e-3)


def test_the_share_of_wrong_rows_in_each_class() -> None:
    assert WORKED.wrong_share == pytest.approx([0.2558, 0.3514, 0.0964], abs=5e-5)
    assert wrong_shares(np.array([1.0]), np.array([1.0]), np.array([0.9])) == pytest.approx([0.0]), "never below none"
    assert WORKED.noise_rate == pytest.approx(1 - (0.16 + 0.24 + 0.375))


def test_what_is_truly_behind_a_rating_sums_to_one() -> None:
    assert WORKED.posterior.sum(1) == pytest.approx(np.ones(3))
    assert WORKED.posterior[0, 0] == pytest.approx(0.16 / 0.215)


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes as they are seen, and neighbours of the same true class."""
    draw = np.random.default_rng(seed)
    true = draw.choice(3, rows, p=WORKED.prior)
    seen = np.array([draw.choice(3, p=WORKED.matrix[one]) for one in true])
    nearest = np.zeros((rows, 2), np.int64)
    for label in range(3):
        members = np.flatnonzero(true == label)
        nearest[members] = np.column_stack([np.roll(members, shift) for shift in (1, 2)])
    return seen, nearest


def test_rows_that_were_drawn_by_a_matrix_give_it() -> None:
    seen, nearest = drawn(6000)
    found = estimate_transition(seen, nearest, 3)
    assert np.abs(found.matrix - WORKED.matrix).max() < 0.06
    assert found.noise_rate == pytest.approx(WORKED.noise_rate, abs=0.03)


def test_a_copy_as_the_neighbour_would_hide_the_noise() -> None:
    """DS2's code doubles the rows, so that one of the two neighbours carries the row's own label."""
    seen, nearest = drawn(3000)
    rows = np.arange(len(seen))
    copies = np.column_stack([rows, rows, nearest[:, 0]])
    found = fit_transition(consensus_among(seen, copies, 3))
    assert np.diag(found.matrix).min() > 0.85 > np.diag(WORKED.matrix).max()


def test_the_true_classes_are_named_by_what_most_rows_are_rated() -> None:
    mirrored = Transition(WORKED.matrix[::-1], WORKED.prior[::-1])
    assert named(mirrored).matrix == pytest.approx(WORKED.matrix)
    assert named(mirrored).prior == pytest.approx(WORKED.prior)
