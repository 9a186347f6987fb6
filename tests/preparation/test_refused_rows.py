"""How many rows of a source may be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.errors import QuarantineError, TooFewPairsError
from mixdpo_ray.preparation.prepare import prepared_table
from tests.preparation.preparations import recipe, some_rows, within, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_too_many_refused_rows_stop_the_job_and_are_named(tmp_path: Path) -> None:
    rows = some_rows(30)
    source = write_jsonl(tmp_path / "a.jsonl", [*rows, *[{**row, "chosen": ""} for row in rows[:10]]])
    with pytest.raises(QuarantineError) as caught:
        prepared_table(recipe(tmp_path, within(source, 0.2)))
    assert "10 of 40 rows were refused, 25.0%" in str(caught.value)
    assert f"10 empty_answer (an answer has no text); the first: {source} row 30, 31, 32, 33, 34; all" in str(
        caught.value
    )
    assert "good" not in str(caught.value)
    assert len(list((tmp_path / "outputs" / "prepared").glob("*.quarantine.jsonl"))) == 1


def test_a_table_made_under_a_wider_limit_is_refused_under_a_narrower_one(tmp_path: Path) -> None:
    rows = some_rows(30)
    source = write_jsonl(tmp_path / "a.jsonl", [*rows, {**rows[0], "chosen": ""}])
    made = prepared_table(recipe(tmp_path, within(source, 0.2)))
    assert prepared_table(recipe(tmp_path, within(source, 0.1))).folder == made.folder
    with pytest.raises(QuarantineError, match="1 of 31 rows"):
        prepared_table(recipe(tmp_path, within(source, 0.01)))
    with pytest.raises(TooFewPairsError, match="global_batch_size 64"):
        prepared_table(recipe(tmp_path, source, global_batch_size=64))


def test_each_source_has_its_own_limit_and_is_named_where_it_is_exceeded(tmp_path: Path) -> None:
    rows, held = some_rows(30), some_rows(10, seed=3)
    source = write_jsonl(tmp_path / "a.jsonl", [*rows, *[{**row, "chosen": ""} for row in rows[:10]]])
    held_out = write_jsonl(tmp_path / "b.jsonl", [*held, *[{**row, "chosen": ""} for row in held[:5]]])
    made = prepared_table(recipe(tmp_path, within(source, 0.3), heldout={"source": within(held_out, 0.4)}))
    assert made.manifest.facts["by_source"] == {
        "data.source": {"rows": 40, "refused": {"empty_answer": 10}},
        "data.heldout.source": {"rows": 15, "refused": {"empty_answer": 5}},
    }
    anew = tmp_path / "anew"
    anew.mkdir()
    for folder in (tmp_path, anew):
        settings = recipe(folder, within(source, 0.3), heldout={"source": within(held_out, 0.3)})
        with pytest.raises(
            QuarantineError, match=r"5 of 15 rows.*data\.heldout\.source\.max_quarantined_fraction allows 30"
        ):
            prepared_table(settings)
