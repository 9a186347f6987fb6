"""Sums of answers of several turns against transformers' own forward pass over the whole conversation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.ld_dpo import LDDPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.pairs.convert import Conversion, Converter
from mixdpo_ray.pairs.flips import with_flips
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.tables.index import SCORED
from mixdpo_ray.tables.prepared_table import (
    SPLITS,
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from mixdpo_ray.training.batch import Ragged, References, TokenRows, build_batch
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.logps import Scorer, pair_logps
from tests.pairs.samples import BAD, GOOD, QUESTION, conversation, data
from tests.pairs.small_tokenizers import MARKED, small_tokenizer
from tests.training.families import random_model
from tests.training.gang import Gang
from tests.training.test_loop import lines, train
from tests.training.tiny import EASY, VOCABULARY, make_job, make_references

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


def with_unscored_ends(rows: pa.Table, seed: int) -> pa.Table:
    """The rows with further tokens behind every answer that are not the assistant's."""
    draw = np.random.default_rng(seed)
    for side in SIDES:
        ids = rows[f"{side}_ids"].to_pylist()
        ends = [draw.integers(3, VOCABULARY, int(draw.integers(0, 6))).tolist() for _ in ids]
        longer = [own + end for own, end in zip(ids, ends, strict=True)]
        runs = [[len(own), len(end)] if end else None for own, end in zip(ids, ends, strict=True)]
        where = rows.column_names.index(f"{side}_ids")
        rows = rows.set_column(where, f"{side}_ids", pa.array(longer, pa.list_(pa.int32())))
        rows = rows.append_column(f"{side}_runs", pa.array(runs, pa.list_(pa.int32())))
    return rows


def world_with_unscored_ends(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny / "model", folder / "model")
    table = PreparedTable.open(str(tiny / "table"))
    facts: dict[str, SplitFacts] = {}
    for split in SPLITS:
        rows = with_unscored_ends(table.read(split, np.arange(table.rows(split))), len(facts))
        write_part(str(folder / "table"), split, rows)
        write_index(str(folder / "table"), split, index_rows(rows))
        facts[split] = SplitFacts(rows=len(rows), first_positions=(0,))
    total = table.manifest.rows_kept
    commit(str(folder / "table"), Manifest(fingerprint="tiny", splits=facts, rows_in=total, rows_kept=total))
    make_references(folder, folder / "reference", EASY)
    return folder


@pytest.mark.parametrize("objective", [DPO(beta=0.1), LDDPO()], ids=["sums", "tokens"])
def test_a_run_learns_nothing_from_tokens_that_are_not_the_assistants(
    tiny: Path, two: Gang, tmp_path: Path, objective: Objective
) -> None:
    """A causal model does not see what stands behind an answer: with and without it, steps are alike."""
    longer, found = world_with_unscored_ends(tiny, tmp_path / "longer"), []
    for number, folder in enumerate((tiny, longer)):
        run = tmp_path / f"run{number}"
        two(train, make_job(folder, run, objective=objective))
        found.append(lines(run))
    assert sum(line["perf/tokens_per_second"] > 0 for line in found[1] if "loss" in line) >= 5
    for plain, masked in zip(*found, strict=True):
        compared = {name for name in plain if isinstance(plain[name], float) and not name.startswith(("perf", "time"))}
        assert len(compared) > 5
        for name in compared:
            assert masked[name] == pytest.approx(plain[name], rel=2e-4, abs=2e-5), name
