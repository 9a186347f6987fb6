"""Several held-out sets in one table: who is in which, and what of it is never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.curriculum.order import easiest_first
from mixdpo_ray.preparation.prepare import describe_table, prepared_table
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.tables.prepared_table import PreparedTable
from tests.preparation.preparations import ON_THE_CLUSTER, Row, recipe, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def ids(table: PreparedTable, name: str) -> list[str]:
    positions = held_out_sets(table)[name]
    return list(table.index("eval").pair_id[positions.start : positions.stop])


def test_sets_lie_behind_the_main_one_and_no_prompt_of_theirs_is_trained(tmp_path: Path) -> None:
    rows, code, maths = some_rows(60), some_rows(12, seed=5), some_rows(9, seed=6)
    leak = {**code[3], "chosen": "another answer"}
    source = write_jsonl(tmp_path / "a.jsonl", [*rows, leak])
    files = {
        "code": write_jsonl(tmp_path / "c.jsonl", [*code, code[0]]),
        "maths": write_jsonl(tmp_path / "m.jsonl", maths),
    }
    sets: dict[str, Row] = {name: {"path": path, "max_quarantined_fraction": 0.3} for name, path in files.items()}
    heldout: dict[str, Any] = {"fraction": 0.2, "max_pairs": 10, "sets": sets}
    settings = recipe(tmp_path, source, heldout=heldout)
    table = prepared_table(settings, ON_THE_CLUSTER)
    plain = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "b.jsonl", rows), heldout=heldout | {"sets": {}}))
    assert table.manifest.quarantined == {"heldout_is_full": 2, "duplicate_pair": 1, "prompt_in_heldout": 1}
    assert {name: len(found) for name, found in held_out_sets(table).items()} == {MAIN: 10, "code": 10, "maths": 9}
    assert ids(table, MAIN) == ids(plain, MAIN)
    assert list(table.index("train").pair_id) == list(plain.index("train").pair_id)
    for found in held_out_sets(table).values():
        part = slice(found.start, found.stop)
        margins, names = table.index("eval").margin[part], table.index("eval").pair_id[part]
        assert easiest_first(margins, names, seed=42).tolist() == list(range(len(found)))
    told = describe_table(table, settings)
    assert f"{table.rows('train')} pairs to train on, 10 held out; held-out sets: code 10, maths 9" in told
    assert list(table.manifest.facts["by_source"]) == [
        "data.source",
        "data.heldout.sets.code",
        "data.heldout.sets.maths",
    ]


def test_a_table_by_another_metric_has_the_same_sets(tmp_path: Path) -> None:
    source, code = (write_jsonl(tmp_path / f"{seed}.jsonl", some_rows(30, seed=seed)) for seed in (1, 2))
    heldout = {"max_pairs": 4, "fraction": 0.1, "sets": {"code": {"path": code}}}
    base = prepared_table(recipe(tmp_path, source, heldout=heldout))
    longer = {"difficulty": "length", "threshold": {"hard_fraction": 0.2}}
    derived = prepared_table(recipe(tmp_path, source, heldout=heldout, curriculum=longer))
    assert derived.folder != base.folder
    assert held_out_sets(derived) == held_out_sets(base)
    assert ids(derived, "code") == ids(base, "code")
    assert np.array_equal(derived.index("eval").margin, base.index("eval").margin)
