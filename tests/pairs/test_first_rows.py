"""What the first rows of a person's own files tell is wrong, and what is left to whoever reads all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.pairs import first_rows
from mixdpo_ray.pairs.first_rows import wrong_at_first_sight
from mixdpo_ray.pairs.settings import SourceSettings
from tests.pairs.samples import BAD, GOOD, QUESTION, data

PAIR = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "score_chosen": 4, "score_rejected": 2}


def write(path: Path, *rows: dict[str, Any]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows)
        path.write_text(text)
    return str(path)


def said(path: str, **settings: Any) -> str | None:
    columns = settings.pop("columns", {})
    return wrong_at_first_sight(data(source=SourceSettings(path=path, columns=columns), **settings))


@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "own.parquet"])
def test_columns_are_looked_at_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    assert said(write(tmp_path / name, PAIR)) is None
    wrong = said(write(tmp_path / name, PAIR), columns={"prompt": "promt"})
    assert wrong is not None
    assert "data.source.columns names promt (for prompt), which the source does not have: did you mean prompt?" in wrong


def test_a_path_without_files_is_told_with_the_file_beside_it_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIR)
    wrong = said(str(tmp_path / "pair.jsonl"))
    assert wrong is not None
    assert wrong.endswith("; did you mean pairs.jsonl?")


def test_a_file_that_nobody_can_read_is_told_with_what_can_be_read(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("prompt,chosen\n")
    assert said(str(table)) == (
        f"data.source: {table} ends in none of .parquet, .json, .jsonl or .ndjson, also with .gz, .bz2, .zst or .lz4: "
        "rename or convert it"
    )


def test_a_file_without_rows_is_told_by_its_name(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.jsonl", tmp_path / "broken.jsonl"
    empty.touch()
    broken.write_text("{\n")
    assert said(str(empty)) == f"data.source: {empty} is empty: give a file of pairs"
    assert said(str(broken)) == f"data.source: {broken} has no row that can be read: give a file of pairs"


def test_ratings_that_are_all_texts_are_told_with_the_first_of_them(tmp_path: Path) -> None:
    rows = [{**PAIR, "score_chosen": "high"}] * 3
    file = write(tmp_path / "own.jsonl", *rows)
    assert said(file) == (
        "data.source: all of its first 3 pairs are refused: a rating is not a number but text or something else, as "
        f"in {file} row 0, score_chosen 'high': write numbers without quotes, or name columns of them"
    )


def test_each_reason_is_told_with_the_first_row_that_it_is_true_of(tmp_path: Path) -> None:
    rows = {**PAIR, "score_chosen": None}, {**PAIR, "chosen": 3}
    file = write(tmp_path / "own.jsonl", *rows)
    assert said(file, missing_score="error") == (
        "data.source: all of its first 2 pairs are refused: a rating is missing (data.missing_score), as in "
        f"{file} row 0: jobs/rate.py rates them, and data.missing_score=hard keeps such pairs, as hard ones; turns are "
        f"not texts of (system,) user, assistant, user, ... ending with an assistant, as in {file} row 1, prompt a "
        "text, chosen 3, rejected a text: look at data.source.columns"
    )


def test_answers_the_wrong_way_round_are_told_where_they_would_stop_the_job(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", {**PAIR, "score_chosen": 1}, {**PAIR, "score_chosen": 0})
    wrong = said(file)
    assert wrong is not None
    assert wrong.endswith("are the columns of the two answers the wrong way round?")
    assert said(file, negative_margin="swap") is None


@pytest.mark.parametrize("other", [PAIR, {**PAIR, "score_chosen": None}])
def test_rows_that_are_not_all_wrong_are_left_to_the_limit_on_refused_ones(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    assert said(write(tmp_path / "own.jsonl", *[{**PAIR, "score_chosen": "?"}] * 5, other)) is None


def test_what_would_have_to_be_read_whole_is_judged_by_its_schema_or_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_rows, "_MOST_BYTES", 10)
    rows = {"question": QUESTION, "chosen": 3, "rejected": 4}
    assert said(write(tmp_path / "large.json", rows)) is None
    wrong = said(write(tmp_path / "large.parquet", rows))
    assert wrong is not None
    assert "format plain has no ratings here" in wrong


@pytest.mark.parametrize("path", ["owner/name", "s3://bucket/pairs.jsonl", "hf://datasets/owner/name/pairs.jsonl"])
def test_what_lies_elsewhere_is_not_looked_at(path: str) -> None:
    assert said(path) is None
