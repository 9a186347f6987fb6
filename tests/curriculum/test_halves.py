import hashlib

import numpy as np
import pytest

from mixdpo_ray.curriculum.halves import Half

IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(31)]


@pytest.mark.parametrize("seed", [0, 42])
def test_two_halves_are_all_pairs_each_once(seed: int) -> None:
    half = Half(seed, 0)
    halves = [one.positions(IDS) for one in (half, half.other)]
    assert half.other.other == half
    assert sorted(np.concatenate(halves).tolist()) == list(range(31))
    assert [len(half) for half in halves] == [16, 15]
    assert np.flatnonzero(half.outside(IDS)).tolist() == sorted(halves[1].tolist())


def test_which_pairs_are_in_a_half_and_in_which_order_does_not_depend_on_the_tables_order() -> None:
    shuffled = [IDS[row] for row in np.random.default_rng(1).permutation(31)]
    half, another = Half(7, 1), Half(8, 1)
    assert [IDS[row] for row in half.positions(IDS)] == [shuffled[row] for row in half.positions(shuffled)]
    assert half.positions(IDS).tolist() != another.positions(IDS).tolist()


def test_a_half_is_trained_whole_in_every_epoch_and_nothing_else_is() -> None:
    half = Half(3, 1)
    plan = half.plan(IDS, batch=4, epochs=2)
    windows = [plan.window(step) for step in range(plan.steps)]
    assert plan.steps == 2 * 4
    assert all((np.diff(window.positions) > 0).all() for window in windows)
    for epoch in (windows[:4], windows[4:]):
        assert sorted(np.concatenate([window.positions for window in epoch])) == sorted(half.positions(IDS))
    assert not any(window.hard.any() for window in windows)
