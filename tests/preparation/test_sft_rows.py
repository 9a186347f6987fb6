"""data.sft in a prepared table: a split of its own, the same in every table that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.errors import TooFewPairsError
from mixdpo_ray.preparation.prepare import describe_table, prepared_table
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import SFT_SPLIT, sft_rows
from tests.preparation.preparations import ON_THE_CLUSTER, Row, recipe, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def answers(count: int, seed: int) -> list[Row]:
    return [{"prompt": row["prompt"], "answer": row["chosen"]} for row in some_rows(count, seed=seed)]


def sft_ids(table: PreparedTable) -> list[str]:
    return list(table.index(SFT_SPLIT).pair_id)


def test_rows_with_one_answer_lie_in_a_split_of_their_own_and_change_no_pair(tmp_path: Path) -> None:
    pairs, held, good = some_rows(40), some_rows(8, seed=4), answers(12, seed=9)
    leak = {"prompt": held[2]["prompt"], "answer": "anything"}
    source, held_out = write_jsonl(tmp_path / "a.jsonl", pairs), write_jsonl(tmp_path / "h.jsonl", held)
    rows = write_jsonl(tmp_path / "s.jsonl", [*good, good[0], leak, {"prompt": "honey", "answer": ""}])
    sft: dict[str, Any] = {"source": {"path": rows, "max_quarantined_fraction": 0.5}}
    settings = recipe(tmp_path, source, heldout={"source": {"path": held_out}}, sft=sft)
    plain = prepared_table(recipe(tmp_path, source, heldout={"source": {"path": held_out}}))
    table = prepared_table(settings, ON_THE_CLUSTER)
    assert list(table.index("train").pair_id) == list(plain.index("train").pair_id)
    assert table.manifest.margins == plain.manifest.margins
    assert table.manifest.content_digest != plain.manifest.content_digest
    assert (sft_rows(table), sft_rows(plain)) == (12, 0)
    stored = table.read(SFT_SPLIT, np.arange(12))
    assert stored["rejected_ids"].to_pylist() == [[]] * 12
    assert all(stored["chosen_ids"].to_pylist())
    assert table.manifest.quarantined == {"duplicate_pair": 1, "prompt_in_heldout": 1, "empty_answer": 1}
    assert table.manifest.facts["by_source"]["data.sft.source"]["rows"] == 15
    assert "12 rows for SFT among the hard pairs" in describe_table(table, settings)
    few = prepared_table(recipe(tmp_path, source, heldout={"source": {"path": held_out}}, sft=sft | {"fraction": 0.25}))
    assert sft_ids(few) == sft_ids(table)[:3]
    assert few.manifest.quarantined["sft_is_full"] == 9


def test_pairs_without_ratings_are_pairs_and_rows_of_the_same_file(tmp_path: Path) -> None:
    pairs = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in some_rows(20)]
    source = write_jsonl(tmp_path / "a.jsonl", pairs)
    table = prepared_table(recipe(tmp_path, source, missing_score="hard", sft={"source": {"path": source}}))
    assert all(table.read("train", np.arange(table.rows("train")))["rejected_ids"].to_pylist())
    assert table.read(SFT_SPLIT, np.arange(sft_rows(table)))["rejected_ids"].to_pylist() == [[]] * sft_rows(table)


def test_a_derived_table_has_the_same_rows(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", some_rows(30))
    sft = {"source": {"path": write_jsonl(tmp_path / "s.jsonl", answers(5, seed=9))}}
    base = prepared_table(recipe(tmp_path, source, sft=sft))
    longer = {"difficulty": "length", "threshold": {"hard_fraction": 0.2}}
    derived = prepared_table(recipe(tmp_path, source, sft=sft, curriculum=longer, pair={"flip": 0.2}))
    assert derived.folder != base.folder
    assert sft_ids(derived) == sft_ids(base)
    assert derived.read(SFT_SPLIT, np.arange(5))["chosen_ids"].equals(base.read(SFT_SPLIT, np.arange(5))["chosen_ids"])


def test_pairs_give_their_chosen_answers_and_no_row_at_all_is_told(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", some_rows(30))
    pairs = write_jsonl(tmp_path / "p.jsonl", some_rows(7, seed=3))
    assert sft_rows(prepared_table(recipe(tmp_path, source, sft={"source": {"path": pairs}}))) == 7
    none = write_jsonl(tmp_path / "n.jsonl", [{"prompt": "honey", "answer": ""}])
    sft = {"source": {"path": none, "max_quarantined_fraction": 1.0}}
    with pytest.raises(TooFewPairsError, match=r"no row of data\.sft\.source is left \(refused: 1 empty_answer"):
        prepared_table(recipe(tmp_path, source, sft=sft))
