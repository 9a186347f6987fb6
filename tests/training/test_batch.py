"""The layout of a micro-batch, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixdpo_ray.training.batch import (
    PairBatch,
    References,
    TokenRows,
    answer_tokens,
    build_batch,
    padded_predictors,
)
from mixdpo_ray.training.length_groups import PASS, length_groups, row_kind

ROWS = pa.table(
    {
        "prompt_ids": pa.array([[1, 2], [3]], pa.list_(pa.int32())),
        "chosen_ids": pa.array([[10, 11], [12, 13, 14]], pa.list_(pa.int32())),
        "rejected_ids": pa.array([[20], [21, 22]], pa.list_(pa.int32())),
        "margin": [0.0, 2.0],
    }
)
REFERENCES = References(np.arange(100, dtype=np.float32), -np.arange(100, dtype=np.float32))


def build(hard: list[bool], positions: tuple[int, ...] = (40, 70)) -> PairBatch:
    tokens = TokenRows.of(ROWS, np.array([40, 70]))
    return build_batch(
        tokens, np.array(positions), np.array(hard), REFERENCES, weight=1, padding=9, device=torch.device("cpu")
    )


def test_an_easy_pair_comes_first_and_a_hard_pair_has_no_rejected_row() -> None:
    """Row 40 is hard, row 70 easy: chosen of 70, chosen of 40, rejected of 70."""
    batch = build([True, False])
    assert batch.groups[0].ids.tolist() == [[3, 12, 13, 14], [1, 2, 10, 11], [3, 21, 22, 9]]
    assert batch.lengths.tolist() == [3, 2, 2]
    assert (batch.easy, batch.hard) == (1, 1)
    assert batch.margin.tolist() == [2.0]
    assert batch.ref_chosen is not None
    assert batch.ref_rejected is not None
    assert batch.ref_chosen.tolist() == [70.0]
    assert batch.ref_rejected.tolist() == [-70.0]


def test_a_completion_token_is_predicted_one_place_before_it() -> None:
    """Four places a row: the row after a prompt of one token predicts from place 0, after two tokens from place 1."""
    batch = build([True, False])
    assert batch.predictors.tolist() == [0, 1, 2, 5, 6, 8, 9]
    assert batch.targets.tolist() == [12, 13, 14, 10, 11, 21, 22]
    assert batch.slots.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert batch.longest == 3


def test_a_batch_of_hard_pairs_alone_has_no_reference_to_read() -> None:
    batch = build([True, True])
    assert batch.groups[0].ids.shape == (2, 4)
    assert batch.ref_chosen is not None
    assert batch.ref_chosen.shape == (0,)
    assert (batch.easy, batch.hard) == (0, 2)


def test_rows_are_found_by_position_in_any_order() -> None:
    assert build([True, True], (70, 40)).groups[0].ids.tolist() == [[3, 12, 13, 14], [1, 2, 10, 11]]


def test_a_slice_of_a_table_reads_its_own_tokens() -> None:
    """Arrow keeps the whole column behind a slice."""
    tokens = TokenRows.of(ROWS.slice(1), np.array([70]))
    assert tokens.prompt[0].tolist() == [3]
    assert tokens.chosen[0].tolist() == [12, 13, 14]


def test_sequences_are_grouped_where_the_places_saved_are_worth_another_pass() -> None:
    """1000 and 10 x 100: 11,000 places together, 1000 + 1000 and a pass of 256 apart; 300 and 200 stay together."""
    apart = length_groups(np.array([100] * 5 + [1000] + [100] * 5))
    assert [rows.tolist() for rows in apart] == [[5], [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]]
    assert [rows.tolist() for rows in length_groups(np.array([200, 300]))] == [[1, 0]]


@pytest.mark.parametrize(
    ("packed", "gpu", "zero_stage", "kind"),
    [
        (True, True, 3, "packed"),
        (False, False, 2, "grouped"),
        (False, False, 3, "together"),  # every rank must run equally many passes
        (False, True, 0, "together"),  # each pass would wait to be launched
    ],
)
def test_pairs_are_padded_in_groups_where_more_passes_are_allowed_and_cheap(
    packed: bool, gpu: bool, zero_stage: int, kind: str
) -> None:
    assert row_kind(packed=packed, gpu=gpu, zero_stage=zero_stage) == kind


def test_groups_are_the_cheapest_of_all_cuts() -> None:
    """Every way to cut eight sorted lengths, counted out."""
    lengths = np.array([900, 880, 600, 580, 300, 290, 100, 90])
    costs = []
    for cuts in itertools.product([False, True], repeat=7):
        ends = [*(place + 1 for place, cut in enumerate(cuts) if cut), 8]
        starts = [0, *ends[:-1]]
        costs.append(sum(PASS + lengths[start] * (end - start) for start, end in zip(starts, ends, strict=True)))
    found = length_groups(lengths)
    assert sum(PASS + lengths[rows].max() * len(rows) for rows in found) == min(costs)


def test_a_sequence_keeps_its_place_whatever_its_group() -> None:
    """Groups of the rows [2] and [0, 1], four and three places wide: row 0 begins at place 4, row 1 at place 7."""
    prompts = [np.array([1]), np.array([1, 2]), np.array([1])]
    answers = [np.array([5, 6]), np.array([7]), np.array([8, 9, 10])]
    places = padded_predictors(prompts, answers, [np.array([2]), np.array([0, 1])])
    assert places.tolist() == [4, 5, 8, 0, 1, 2]
    tokens = answer_tokens(answers)
    assert tokens["targets"].tolist() == [5, 6, 7, 8, 9, 10]
    assert tokens["slots"].tolist() == [0, 1, 3, 6, 7, 8]
