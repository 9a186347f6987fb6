"""Neighbours, votes and marks: what SimiFeat makes of rows of which some carry another class."""

from __future__ import annotations

import numpy as np
import pytest

from mixdpo_ray.curation.neighbours import Nearest, agreement_of, nearest_rows, rarity
from mixdpo_ray.curation.wrong_ratings import find_wrong, marked_rows, votes_of

CORNERS = np.eye(3, dtype=np.float32)


def made(rows: int = 600, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray, Nearest]:
    """True classes, those that are seen, and neighbours in three clusters."""
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, rows)
    seen = np.where(draw.random(rows) < noise, (true + draw.integers(1, 3, rows)) % 3, true)
    vectors = CORNERS[true] + 0.1 * draw.standard_normal((rows, 3)).astype(np.float32)
    return true, seen, nearest_rows(vectors, 30)


def test_no_row_is_its_own_neighbour_and_the_nearest_comes_first() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [1, 0.01]], np.float32)
    nearest = nearest_rows(vectors, 10)
    assert nearest.rows.tolist()[0] == [3, 1, 2]
    assert nearest.distance[0] == pytest.approx([5e-5, 0.00496, 1], abs=1e-5)
    assert all(row not in near for row, near in enumerate(nearest.rows.tolist()))


def test_rarity_grows_with_the_mean_distance() -> None:
    lonely = Nearest(np.zeros((2, 2), np.int64), np.array([[0.0, 0.0], [0.9, 1.1]]))
    assert rarity(lonely) == pytest.approx([0.0, 2 / (1 + np.exp(-1)) - 1])


def test_neighbours_vote_by_nearness_among_those_of_the_sample() -> None:
    nearest = Nearest(np.array([[1, 2, 3]] * 4), np.array([[0.1, 0.2, 0.5]] * 4))
    labels = np.array([0, 1, 0, 1])
    assert votes_of(labels, nearest, 2, np.array([0, 1, 3]), voters=2)[0] == pytest.approx([0, 1])
    everyone = votes_of(labels, nearest, 2, np.arange(4), voters=3)[0]
    assert everyone == pytest.approx([0.8 / 2.2, 1.4 / 2.2])
    nearer = votes_of(labels, nearest, 2, np.arange(4), voters=2)[0]
    assert nearer == pytest.approx([0.8 / 1.7, 0.9 / 1.7])


def test_in_each_class_the_share_with_the_smallest_votes_is_marked() -> None:
    labels, votes = np.array([0, 0, 0, 0, 1, 1]), np.array([0.9, 0.1, 0.5, 0.2, 0.3, 0.2])
    assert marked_rows(labels, votes, np.array([0.5, 0.5])).tolist() == [1, 3, 5]


def test_wrong_classes_are_found_and_the_true_ones_suggested() -> None:
    true, seen, nearest = made()
    share = np.array([(seen[true == label] != label).mean() for label in range(3)])
    verdicts = find_wrong(seen, nearest, share)
    wrong = seen != true
    assert (verdicts.wrong == wrong).mean() > 0.98
    found = verdicts.wrong & wrong
    assert (verdicts.suggested[found] == true[found]).all()
    assert (verdicts.confidence[found] > 0.5).mean() > 0.95
    assert (verdicts.confidence[~verdicts.wrong] < 0.5).all()


def test_the_same_seed_finds_the_same_rows() -> None:
    _, seen, nearest = made(200)
    share = np.full(3, 0.2)
    one, other, third = (find_wrong(seen, nearest, share, seed=seed) for seed in (1, 1, 2))
    assert (one.marked_share == other.marked_share).all()
    assert (one.marked_share != third.marked_share).any()


def test_how_often_neighbours_agree_is_told_beside_chance() -> None:
    true, _, nearest = made()
    same, chance = agreement_of(true, nearest)
    assert same > 0.98
    assert chance == pytest.approx(1 / 3, abs=0.02)
