"""Pairs that are made of several answers, or of other pairs, are prepared and accounted for like any others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.errors import FormatError
from mixdpo_ray.preparation.convert_sources import SIZES
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.tables.prepared_table import PreparedTable
from tests.preparation.preparations import ON_THE_CLUSTER, Row, recipe, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

SCORES = (8.0, 7.0, 4.0, 2.0)  # each prompt's four answers, in an order of its own


def raw_rows(count: int) -> list[Row]:
    draw = np.random.default_rng(0)
    return [
        {
            "instruction": f"honey tag{number}",
            "completions": [
                {"response": "wax " * round(score), "overall_score": score, "annotations": {}}
                for score in draw.permutation(SCORES).tolist()
            ],
        }
        for number in range(count)
    ]


def pairs(table: PreparedTable, split: str = "train") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.read(split, np.arange(table.rows(split))).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("pair", "margins"),
    [
        ({"rule": "max_min"}, {6.0}),
        ({"rule": "max_max"}, {1.0}),
        ({"rule": "margin_controlled", "margins": [4.5, 6.0]}, {4.0, 6.0}),
        ({}, {1.0, 4.0, 6.0}),
    ],
    ids=str,
)
def test_a_rule_makes_one_pair_of_each_prompt_and_another_table(
    tmp_path: Path, pair: dict[str, Any], margins: set[float]
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", raw_rows(40))
    table = prepared_table(recipe(tmp_path, source, pair=pair))
    assert table.manifest.rows_in == table.manifest.rows_kept == 40
    assert set(table.index("train").margin) == margins
    assert {row["score_chosen"] for row in pairs(table)} == {8.0}
    assert (prepared_table(recipe(tmp_path, source)).folder == table.folder) == (not pair)


def test_a_rule_for_a_source_of_pairs_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", some_rows(20))
    with pytest.raises(
        FormatError, match=r"data.pair.rule max_min chooses among several answers, and format plain holds"
    ):
        prepared_table(recipe(tmp_path, source, pair={"rule": "max_min"}))


def test_augmented_copies_stay_together_and_add_up(tmp_path: Path) -> None:
    rows = some_rows(60)
    ties = sum(row["score_chosen"] == row["score_rejected"] for row in rows)
    assert ties > 3
    for number, sizes in enumerate((SIZES, ON_THE_CLUSTER)):
        source = write_jsonl(tmp_path / f"{number}.jsonl", rows)
        asked = recipe(tmp_path, source, pair={"augment": "reward"}, heldout={"fraction": 0.2})
        table = prepared_table(asked, sizes)
        assert table.manifest.quarantined == {"tie_not_augmented": ties}
        assert table.manifest.notes == {"augmented": 2 * (60 - ties)}
        assert table.manifest.rows_in == 2 * (60 - ties) + ties
        for split in ("train", "eval"):
            answers = [
                tuple(sorted((tuple(row["chosen_ids"]), tuple(row["rejected_ids"])))) for row in pairs(table, split)
            ]
            assert set(Counter(answers).values()) == {2}, split
            assert {row["score_chosen"] > row["score_rejected"] for row in pairs(table, split)} == {True, False}
            assert min(row["margin"] for row in pairs(table, split)) > 0


def test_held_out_pairs_of_a_source_of_their_own_are_not_augmented(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", some_rows(30))
    held = write_jsonl(tmp_path / "b.jsonl", some_rows(10, seed=7))
    table = prepared_table(recipe(tmp_path, source, pair={"augment": "reward"}, heldout={"source": {"path": held}}))
    assert table.rows("eval") == 10
    assert table.rows("train") == table.manifest.notes["augmented"]
