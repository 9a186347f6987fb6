"""Tables of answers of several turns: what they hold, what they count, and that others stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.pairs.report import accounting_text
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.tables.index import SCORED
from mixdpo_ray.tables.runs import RUNS
from tests.pairs.samples import conversation
from tests.preparation.preparations import ON_THE_CLUSTER, recipe, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def with_turns(rows: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    """The rows, some of which go on after their chosen answer."""
    return [
        {**row, "chosen": conversation(row["prompt"], row["chosen"], "and bee", "wax")} if number % every == 0 else row
        for number, row in enumerate(rows)
    ]


def test_a_table_knows_which_tokens_are_the_assistants_also_once_it_is_derived(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", with_turns(some_rows(60), 3))
    for table in (
        prepared_table(recipe(tmp_path, source), ON_THE_CLUSTER),
        prepared_table(recipe(tmp_path, source, pair={"flip": 0.5})),
    ):
        index, rows = table.index("train"), table.read("train", np.arange(table.rows("train")))
        assert index.scored is not None
        for side, scored in zip(("chosen", "rejected"), index.scored, strict=True):
            runs, ids = rows[f"{side}_runs"].to_pylist(), rows[f"{side}_ids"].to_pylist()
            counted = [len(answer) if one is None else sum(one[::2]) for answer, one in zip(ids, runs, strict=True)]
            assert scored.tolist() == counted
            assert all(one is None or sum(one) == len(answer) for answer, one in zip(ids, runs, strict=True))
        both = [rows[name].null_count for name in RUNS]
        assert sum(both) == 2 * len(rows) - sum(
            (index.chosen_length > index.scored[0]) | (index.rejected_length > index.scored[1])
        )
        assert (both[1] == len(rows)) == (table.manifest.facts.get("flip", 0) == 0)


def test_a_table_of_single_turns_has_no_such_columns(tmp_path: Path) -> None:
    table = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", some_rows(20))))
    assert table.index("train").scored is None
    assert not any(table.has_column("train", name) for name in (*RUNS, *SCORED))


def test_tools_that_the_template_ignores_are_told_once(tmp_path: Path) -> None:
    rows = [{**row, "tools": [{"name": "weather"}]} for row in some_rows(20)]
    manifest = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows))).manifest
    text = accounting_text(manifest.rows_in, manifest.rows_kept, manifest.quarantined, manifest.notes)
    assert text.splitlines()[-1].startswith("warning: 20 pairs have tools, and the chat template renders them as if")
