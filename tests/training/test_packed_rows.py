"""A packed row by hand: two easy pairs and a hard one, each of 2 prompt tokens and answers of 3 and 1 tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixdpo_ray.training.packed_rows import Layout, Span, packed_row

PROMPTS = [np.array(tokens, np.int32) for tokens in ([1, 2], [3, 4], [5, 6])]
CHOSEN = [np.array(tokens, np.int32) for tokens in ([10, 11, 12], [13, 14, 15], [16, 17, 18])]
REJECTED = [np.array(tokens, np.int32) for tokens in ([20], [21])]
ROW = packed_row(PROMPTS, CHOSEN, REJECTED)


def test_a_pair_is_its_prompt_its_chosen_and_its_rejected_answer() -> None:
    assert ROW.ids.tolist() == [1, 2, 10, 11, 12, 20, 3, 4, 13, 14, 15, 21, 5, 6, 16, 17, 18]


def test_a_rejected_answer_goes_on_where_its_prompt_ended() -> None:
    assert ROW.positions.tolist() == [0, 1, 2, 3, 4, 2, 0, 1, 2, 3, 4, 2, 0, 1, 2, 3, 4]


def test_spans_follow_each_other_and_rejected_ones_know_their_prompt() -> None:
    assert ROW.spans == (Span(0, 5), Span(5, 6, (0, 2)), Span(6, 11), Span(11, 12, (6, 8)), Span(12, 17))


def test_the_prompts_last_place_predicts_both_answers() -> None:
    """Chosen answers first, the hard pair's too, then rejected ones."""
    assert ROW.predictors.tolist() == [1, 2, 3, 7, 8, 9, 13, 14, 15, 1, 7]


def test_a_layout_counts_prompts_again_where_a_rejected_answer_sees_them() -> None:
    layout = Layout.of(ROW.spans, torch.device("cpu"))
    assert layout.queries.tolist() == [0, 5, 6, 11, 12, 17]
    assert layout.keys.tolist() == [0, 5, 8, 13, 16, 21]
    assert layout.key_indices.tolist() == [
        *[0, 1, 2, 3, 4], *[0, 1, 5], *[6, 7, 8, 9, 10], *[6, 7, 11], *[12, 13, 14, 15, 16]
    ]  # fmt: skip
    assert (layout.longest_queries, layout.longest_keys) == (5, 5)
    assert layout.queries.dtype == layout.keys.dtype == torch.int32


def test_one_token_each_is_enough() -> None:
    """The smallest pair: both answers are predicted at the only prompt token."""
    row = packed_row([PROMPTS[0][:1]], [CHOSEN[0][:1]], REJECTED[:1])
    assert row.spans == (Span(0, 2), Span(2, 3, (0, 1)))
    assert (row.positions.tolist(), row.predictors.tolist()) == ([0, 1, 1], [0, 0])


def test_hard_pairs_alone_share_nothing() -> None:
    row = packed_row(PROMPTS, CHOSEN, [])
    assert row.spans == (Span(0, 5), Span(5, 10), Span(10, 15))
    assert row.predictors.tolist() == [1, 2, 3, 6, 7, 8, 11, 12, 13]


def test_an_answer_without_a_token_before_it_is_refused() -> None:
    with pytest.raises(AssertionError, match="needs a token before it"):
        packed_row([PROMPTS[0][:0]], CHOSEN[:1], [])
