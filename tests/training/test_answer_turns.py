"""Sums of answers of several turns against transformers' own forward pass over the whole conversation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixdpo_ray.pairs.convert import Conversion, Converter
from mixdpo_ray.pairs.flips import with_flips
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.tables.index import SCORED
from mixdpo_ray.tables.prepared_table import index_rows
from mixdpo_ray.training.batch import Ragged, References, TokenRows, build_batch
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.logps import Scorer, pair_logps
from tests.pairs.samples import BAD, GOOD, QUESTION, conversation, data
from tests.pairs.small_tokenizers import MARKED, small_tokenizer
from tests.training.families import random_model

MANY = conversation("Hello", "Hi!", QUESTION, GOOD, "And cars?", "Noise.")
ROWS: list[dict[str, Any]] = [
    {"chosen": MANY, "rejected": conversation("Hello", BAD), "margin": 2.0},
    {"chosen": conversation(QUESTION, GOOD), "rejected": conversation(QUESTION, BAD), "margin": 1.0},
    {"chosen": conversation("Hello", "Hi!", QUESTION, GOOD), "rejected": MANY, "margin": 0.0},
]
SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model("llama", vocab_size=400)


@pytest.fixture(scope="module")
def converted() -> Conversion:
    rows = [RawRow("x", number, row) for number, row in enumerate(ROWS)]
    return Converter(data(), "plain", small_tokenizer()).convert(rows)


def by_hand(model: Any, turns: list[dict[str, Any]], skipped: int) -> tuple[float, int]:
    """The log-probs that the model gives to the assistant's tokens, by the mask of transformers, and their number."""
    found = small_tokenizer(MARKED).apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = torch.tensor(found["input_ids"]), torch.tensor(found["assistant_masks"]).bool()
    mask[:skipped] = False
    with torch.no_grad():
        logps = model(ids[None]).logits[0].log_softmax(-1)
    mine = logps[:-1].gather(1, ids[1:, None])[:, 0][mask[1:]]
    return float(mine.sum()), len(mine)


@pytest.mark.parametrize("kind", ["packed", "grouped", "together"])
def test_only_the_assistants_tokens_count_in_sums_and_lengths(model: Any, converted: Conversion, kind: RowKind) -> None:
    """Three pairs, the last of which is hard; that the prompts' turns are the assistant's too changes nothing."""
    rows, positions = converted.kept, np.arange(3)
    scorer = Scorer(model, packing=kind == "packed")
    batch = build_batch(
        TokenRows.of(rows, positions), positions, np.array([False, False, True]), None,
        weight=1, padding=0, device=torch.device("cpu"), rows=kind,
    )  # fmt: skip
    with torch.no_grad():
        found = pair_logps(scorer, batch, chunks=2)
    prompts = [len(ids) for ids in rows["prompt_ids"].to_pylist()]
    expected = {
        side: [by_hand(model, row[side], prompt) for row, prompt in zip(ROWS, prompts, strict=True)] for side in SIDES
    }
    for sums, lengths, hand in (
        (found.easy.chosen, found.easy.chosen_length, expected["chosen"][:2]),
        (found.easy.rejected, found.easy.rejected_length, expected["rejected"][:2]),
        (found.hard_chosen, found.hard_length, expected["chosen"][2:]),
    ):
        assert sums.tolist() == pytest.approx([total for total, _ in hand], abs=1e-4)
        assert lengths.tolist() == [count for _, count in hand]
    index = index_rows(rows)
    for side, name in zip(SIDES, SCORED, strict=True):
        assert index[name].to_pylist() == [count for _, count in expected[side]]
    assert index["chosen_length"][0].as_py() > index[SCORED[0]][0].as_py()


def test_references_of_tokens_are_as_long_as_what_is_scored(converted: Conversion) -> None:
    rows, positions = converted.kept, np.arange(3)
    scored = [index_rows(rows)[name].to_pylist() for name in SCORED]
    lists = [pa.chunked_array([pa.array([[0.5] * n for n in side], pa.list_(pa.float32()))]) for side in scored]
    references = References(np.zeros(3, np.float32), np.zeros(3, np.float32), None, tuple(map(Ragged.of, lists)))  # type: ignore[arg-type]
    batch = build_batch(
        TokenRows.of(rows, positions), positions, np.zeros(3, np.bool_), references,
        weight=1, padding=0, device=torch.device("cpu"),
    )  # fmt: skip
    assert batch.ref_tokens is not None
    assert (batch.ref_tokens != 0).sum(1).tolist() == [*scored[0], *scored[1]] == batch.lengths.long().tolist()


def test_a_flipped_pair_takes_its_runs_along(converted: Conversion) -> None:
    flipped = with_flips(converted.kept, np.array([True, False, False]))
    assert flipped["chosen_runs"].to_pylist()[0] is None
    assert flipped["rejected_runs"].to_pylist()[0] == converted.kept["chosen_runs"].to_pylist()[0]
