"""Answers on disk: appended part by part, found again by key, and equal bytes for equal answers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables import answer_table
from mixdpo_ray.tables.answer_table import ANSWERS, AnswerTable, Key


def rows(*keys: Key, text: str = "answer") -> pa.Table:
    made = [
        {
            "prompt_id": prompt,
            "draw": draw,
            "prompt": [{"role": "user", "content": prompt}],
            "answer": f"{text} {prompt} {draw}",
            "tokens": 2,
            "token_ids": [draw, 7] if draw else None,
            "finish": "stop",
            "model": "m",
            "settings": "s",
        }
        for prompt, draw in keys
    ]
    return pa.Table.from_pylist(made, ANSWERS)


def table(folder: Path, *parts: list[Key]) -> AnswerTable:
    made = AnswerTable.create(str(folder), "fingerprint", {"model": "m"})
    for keys in parts:
        made.append(rows(*keys))
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def test_what_was_appended_is_found_by_another_process_and_in_the_order_asked_for(tmp_path: Path) -> None:
    table(tmp_path, [("b", 1), ("a", 0)], [("a", 1)])
    found = AnswerTable.open(str(tmp_path))
    assert found.keys == {("a", 0), ("a", 1), ("b", 1)}
    (read,) = found.rows([("a", 1), ("b", 1), ("a", 0)])
    assert read == rows(("a", 1), ("b", 1), ("a", 0))


def test_an_answer_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    made = table(tmp_path, [("a", 0)])
    made.append(rows(("a", 0), ("a", 1), text="another"))
    (read,) = made.rows([("a", 0), ("a", 1)])
    assert read["answer"].to_pylist() == ["answer a 0", "another a 1"]


def test_settled_tables_of_equal_answers_have_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_table, "ROWS_TOGETHER", 3)
    keys = [(prompt, draw) for prompt in "abcd" for draw in range(2)]
    once, slowly = table(tmp_path / "once", keys), table(tmp_path / "slowly", *([key] for key in reversed(keys)))
    once.settle()
    slowly.settle()
    assert content(tmp_path / "once") == content(tmp_path / "slowly")
    assert len(content(tmp_path / "once")) == 3
    slowly.settle()
    assert content(tmp_path / "once") == content(tmp_path / "slowly")
    assert AnswerTable.open(str(tmp_path / "slowly")).keys == set(keys)


def test_a_kill_while_settling_leaves_every_answer_once(tmp_path: Path) -> None:
    """The new parts are there, and the old ones not yet gone."""
    made = table(tmp_path, [("b", 0)], [("a", 0)])
    before = content(tmp_path)
    made.settle()
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    again = AnswerTable.open(str(tmp_path))
    (read,) = again.rows([("a", 0), ("b", 0)])
    assert read == rows(("a", 0), ("b", 0))
    again.settle()
    assert len(content(tmp_path)) == 1


def test_a_flipped_bit_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    table(tmp_path, [("a", 0)])
    (part,) = tmp_path.glob("part-*")
    damaged = bytearray(part.read_bytes())
    damaged[40] ^= 1
    part.write_bytes(damaged)
    with pytest.raises(PreparedTableError, match=rf"{part.name} is missing or damaged .* draws its answers again"):
        list(AnswerTable.open(str(tmp_path)).rows([("a", 0)]))


def test_a_folder_without_answers_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(PreparedTableError, match=r"holds no answers .*: run jobs/sample.py"):
        AnswerTable.open(str(tmp_path))
