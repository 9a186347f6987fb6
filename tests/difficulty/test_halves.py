import hashlib

import numpy as np
import pytest

from mixdpo_ray.difficulty.halves import half_of

IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(31)]


@pytest.mark.parametrize("seed", [0, 42])
def test_two_halves_are_all_pairs_each_once(seed: int) -> None:
    halves = [half_of(IDS, seed, half) for half in (0, 1)]
    assert sorted(np.concatenate(halves).tolist()) == list(range(31))
    assert [len(half) for half in halves] == [16, 15]


def test_which_pairs_are_in_a_half_and_in_which_order_does_not_depend_on_the_tables_order() -> None:
    shuffled = [IDS[row] for row in np.random.default_rng(1).permutation(31)]
    assert [IDS[row] for row in half_of(IDS, 7, 1)] == [shuffled[row] for row in half_of(shuffled, 7, 1)]
    assert half_of(IDS, 7, 1).tolist() != half_of(IDS, 8, 1).tolist()
