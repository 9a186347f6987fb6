"""A flipped pair is its mirror image under another name; which pairs are flipped is a property of each pair."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.curriculum.order import seeded_hashes
from mixdpo_ray.pairs.flips import flipped, flipped_id, with_flips

COUNT = 4000
IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(COUNT)]


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
def test_so_many_pairs_are_flipped(probability: float) -> None:
    share = flipped(IDS, probability, 42).mean()
    assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / COUNT) ** 0.5)


def test_none_and_all() -> None:
    assert not flipped(IDS, 0.0, 1).any()
    assert flipped(IDS, 1.0, 1).all()


def test_more_noise_flips_the_same_pairs_and_more_wherever_they_lie() -> None:
    little, much = flipped(IDS, 0.1, 42), flipped(IDS, 0.3, 42)
    assert (much | ~little).all()
    assert (flipped(IDS[::-1], 0.1, 42)[::-1] == little).all()
    assert (flipped(IDS, 0.1, 43) != little).any()


def test_noise_does_not_gather_at_the_beginning_of_equal_margins() -> None:
    by_tie_break = np.argsort(seeded_hashes(IDS, 42))
    first_half = flipped(IDS, 0.2, 42)[by_tie_break][: COUNT // 2].mean()
    assert first_half == pytest.approx(0.2, abs=0.05)


def test_the_sides_of_flipped_rows_are_exchanged_and_nothing_else() -> None:
    rows = pa.table(
        {
            "pair_id": pa.chunked_array([["a" * 32], ["b" * 32, "c" * 32]]),
            "prompt_ids": [[1], [2], [3]],
            "chosen_ids": pa.chunked_array([[[10], [11, 11]], [[12]]]),
            "rejected_ids": [[20, 20, 20], [21], [22, 22]],
            "score_chosen": [5.0, 6.0, 7.0],
            "score_rejected": [1.0, 2.0, 3.0],
            "chosen_length": [1, 2, 1],
            "rejected_length": [3, 1, 2],
            "margin": [4.0, 4.0, 4.0],
        }
    )
    done = with_flips(rows, np.array([True, False, True])).to_pydict()
    assert done["chosen_ids"] == [[20, 20, 20], [11, 11], [22, 22]]
    assert done["rejected_ids"] == [[10], [21], [12]]
    assert (done["score_chosen"], done["score_rejected"]) == ([1.0, 6.0, 3.0], [5.0, 2.0, 7.0])
    assert (done["chosen_length"], done["rejected_length"]) == ([3, 2, 2], [1, 1, 1])
    assert (done["prompt_ids"], done["margin"]) == ([[1], [2], [3]], [4.0, 4.0, 4.0])
    assert done["flipped"] == [True, False, True]
    assert done["pair_id"] == [flipped_id("a" * 32), "b" * 32, flipped_id("c" * 32)]
    assert len({*done["pair_id"], "a" * 32, "c" * 32}) == 5


def test_no_flips_leave_every_row_and_mark_it() -> None:
    rows = pa.table({"pair_id": pa.chunked_array([["a" * 32]]), "chosen_ids": [[1]], "rejected_ids": [[2]]})
    done = with_flips(rows, np.array([False]))
    assert done.drop_columns(["flipped"]) == rows
    assert done["flipped"].to_pylist() == [False]
