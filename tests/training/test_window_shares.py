"""The counts that losses are divided by, and what each rank runs."""

from __future__ import annotations

import numpy as np

from mixdpo_ray.curriculum.plan import Window
from mixdpo_ray.tables.index import Index
from mixdpo_ray.training.step import LossWeights
from mixdpo_ray.training.window_shares import share_window

PROMPT = np.array([2, 2, 2, 2])
CHOSEN = np.array([3, 1, 4, 6])
REJECTED = np.array([1, 2, 5, 9])
INDEX = Index(["a", "b", "c", "d"], np.array([2.0, 1.0, 0.0, 0.0]), PROMPT, CHOSEN, REJECTED)
HARD = np.array([False, False, True, True])
WINDOW = Window(0, "mixed", 0, 0, 0, 1, np.arange(4), HARD, HARD)


def test_counts_are_of_the_window_whatever_the_split() -> None:
    """Easy 2 + 3 + 2 + 1 and 2 + 1 + 2 + 2 tokens, hard 2 + 4 and 2 + 6: 29 in all; completions of hard pairs 10."""
    for world, per_device in ((1, 4), (1, 1), (2, 1), (3, 2), (4, 1)):
        totals = share_window(WINDOW, INDEX, world, per_device, 100).totals
        assert (totals.pairs, totals.easy, totals.hard, totals.hard_tokens, totals.tokens) == (4, 2, 2, 10, 29)


def test_padding_is_what_the_tensors_hold_beyond_the_tokens() -> None:
    """One micro-batch: six sequences as long as the longest, 2 + 6. One pair each: 8, 6, 2 x 5 and 2 x 4."""
    assert share_window(WINDOW, INDEX, 1, 4, 100).totals.computed == 6 * 8
    assert share_window(WINDOW, INDEX, 1, 1, 100).totals.computed == 8 + 6 + 10 + 8


def test_a_filler_is_padding_and_nothing_else() -> None:
    """Three ranks for four pairs with one pair at a time: two micro-steps, two fillers."""
    shared = share_window(WINDOW, INDEX, 3, 1, 100)
    assert [len(share) for share in shared.shares] == [2, 2, 2]
    assert sum(micro.weight for share in shared.shares for micro in share) == 4
    assert shared.totals.hard_micro_batches == 2
    assert shared.totals.computed > 8 + 6 + 10 + 8


def test_a_packed_row_holds_a_prompt_once_and_no_padding() -> None:
    """Easy 2 + 3 + 1 and 2 + 1 + 2, hard 2 + 4 and 2 + 6: 25 places for 29 tokens, 4 of which are shared."""
    for world, per_device in ((1, 4), (1, 1), (2, 2), (4, 1)):
        totals = share_window(WINDOW, INDEX, world, per_device, 100, "packed").totals
        assert (totals.tokens, totals.shared, totals.computed, totals.padding) == (29, 4, 25, 0)


def test_chunks_are_the_most_that_any_rank_needs() -> None:
    """One pair a rank: 6 completion tokens of d, 4 of c, 3 + 1 of a and 1 + 2 of b, in chunks of 2."""
    assert share_window(WINDOW, INDEX, 4, 1, 2).totals.chunks == (3,)
    assert share_window(WINDOW, INDEX, 1, 1, 2).totals.chunks == (3, 2, 2, 2)


def test_hard_pairs_weigh_as_much_as_easy_ones_beside_them() -> None:
    totals = share_window(WINDOW, INDEX, 1, 4, 100).totals
    assert LossWeights(totals, "mixed", "example_mean", 0.5).hard == 0.5 * 2 / 4
    assert LossWeights(totals, "hard", "example_mean", 0.5).hard == 0.5
    assert LossWeights(totals, "mixed", "example_mean", 0.5).easy == 1 / 4


def test_tokens_that_are_not_the_assistants_are_run_and_not_counted() -> None:
    """Of c's four tokens two are scored, of d's six five: 7 in all, and as many tokens go through the model as ever."""
    scored = (np.array([3, 1, 2, 5]), np.array([1, 2, 5, 9]))
    index = Index(INDEX.pair_id, INDEX.margin, PROMPT, CHOSEN, REJECTED, scored=scored)
    for world, per_device in ((1, 4), (3, 2), (4, 1)):
        totals = share_window(WINDOW, index, world, per_device, 2).totals
        assert (totals.hard_tokens, totals.tokens) == (7, 29)
    assert share_window(WINDOW, index, 4, 1, 2).totals.chunks == (3,)
    assert share_window(WINDOW, index, 1, 4, 2).totals.chunks == (-(-(3 + 1 + 1 + 2 + 2 + 5) // 2),)
