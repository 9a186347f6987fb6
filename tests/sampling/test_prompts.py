"""Prompts of any source: kept, or refused with their file, row and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.errors import DataError, QuarantineError
from mixdpo_ray.pairs.pair import content_hash
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import AskedAnswer
from mixdpo_ray.sampling.http import question_of
from mixdpo_ray.sampling.prompts import AskedPrompt, prompt_turns, prompts_of_source, with_system_prompt

USER = {"role": "user", "content": "a question"}
ANSWER = {"role": "assistant", "content": "an answer"}
SYSTEM = {"role": "system", "content": "be brief"}


def recipe(folder: Path, **prompts: Any) -> Recipe:
    source = {"path": str(folder / "prompts.jsonl"), **prompts.pop("source", {})}
    return Recipe.model_validate(
        {
            "model": {"path": "model"},
            "data": {"source": {"path": "nowhere.jsonl"}},
            "output": {"storage_path": str(folder / "out")},
            "answers": {"sample": {"prompts": {"source": source, **prompts}}},
        }
    )


def write(folder: Path, *rows: Any, name: str = "prompts.jsonl") -> None:
    (folder / name).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def read(asked: Recipe) -> list[AskedPrompt]:
    assert asked.answers.sample.prompts.source
    return prompts_of_source(asked, asked.answers.sample.prompts.source)


def texts(found: list[AskedPrompt]) -> list[str]:
    return [prompt.messages[-1]["content"] for prompt in found]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a question", (USER,)),
        ([USER], (USER,)),
        ([SYSTEM, USER, ANSWER, USER], (SYSTEM, USER, ANSWER, USER)),
        ([USER, ANSWER], (USER,)),
        ([USER, USER], "bad_turns"),
        ([ANSWER], "bad_turns"),
        ([USER, SYSTEM, USER], "bad_turns"),
        ([], "bad_turns"),
        ([{"role": "user"}], "bad_turns"),
        (None, "bad_turns"),
        (7, "bad_turns"),
        (" \n", "empty_prompt"),
        ([{"role": "user", "content": ""}], "empty_prompt"),
        ("half of a pair \ud800", "lone_surrogate"),
    ],
)
def test_a_prompt_is_a_text_or_turns_that_end_with_the_users(value: object, expected: object) -> None:
    assert prompt_turns(value) == expected


def test_each_prompt_is_answered_once_under_the_name_that_pairs_have_for_it(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": [{"role": "user", "content": "a"}]})
    found = read(recipe(tmp_path))
    assert texts(found) == ["a", "b"]
    assert found[0].prompt_id == content_hash(["user", "a"])


@pytest.mark.parametrize(
    ("row", "columns"),
    [({"instruction": "a", "input": "b"}, {}), ({"messages": [USER]}, {}), ({"q": "a"}, {"prompt": "q"})],
)
def test_the_column_is_found_or_named(tmp_path: Path, row: dict[str, Any], columns: dict[str, str]) -> None:
    write(tmp_path, row)
    assert len(read(recipe(tmp_path, source={"columns": columns}))) == 1


def test_parquet_is_read_like_lines(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "b"]}), tmp_path / "prompts.parquet")
    assert texts(read(recipe(tmp_path, source={"path": str(tmp_path / "prompts.parquet")}))) == ["a", "b"]


def test_a_round_takes_its_part_of_the_prompts(tmp_path: Path) -> None:
    write(tmp_path, *({"prompt": letter} for letter in "abcdef"))
    assert texts(read(recipe(tmp_path, skip=2, most=3))) == ["c", "d", "e"]
    assert texts(read(recipe(tmp_path, skip=4, most=3))) == ["e", "f"]
    with pytest.raises(
        DataError, match=r"has 6 prompts, and answers.sample.prompts.skip leaves out 6: nothing is left"
    ):
        read(recipe(tmp_path, skip=6))


def test_a_few_bad_rows_are_named_and_many_stop_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, *({"prompt": letter} for letter in "abcde"), {"prompt": ""}, name="prompts.jsonl")
    assert len(read(recipe(tmp_path))) == 5
    said = capsys.readouterr().err
    assert "warning: 1 of 6 rows" in said
    quarantine = tmp_path / "out" / "samples" / "run.quarantine.jsonl"
    assert json.loads(quarantine.read_text())["row"] == 5
    assert str(quarantine) in said
    write(tmp_path, {"prompt": "a"}, "{no json", {"prompt": " "})
    with pytest.raises(QuarantineError, match=r"2 of 3 rows were refused.*row 1 \(corrupt_line\), 2 \(empty_prompt\)"):
        read(recipe(tmp_path))


@pytest.mark.parametrize(
    ("row", "source", "said"),
    [
        ({"text": "a"}, {}, "answers.sample.prompts.source has columns text, and not prompt or messages"),
        ({"prompt": "a"}, {"columns": {"prompt": "q"}}, "answers.sample.prompts.source has columns prompt, and not q"),
        ({"prompt": "a"}, {"columns": {"chosen": "q"}}, "answers.sample.prompts.source.columns maps chosen"),
        (
            {"prompt": "a"},
            {"format": "ultrafeedback"},
            "answers.sample.prompts.source.format ultrafeedback is one of pairs",
        ),
        (
            {"prompt": "a"},
            {"path": "/nowhere/at/all.jsonl"},
            "answers.sample.prompts.source.path /nowhere/at/all.jsonl: no file",
        ),
    ],
)
def test_what_is_wrong_with_a_source_names_the_setting(
    tmp_path: Path, row: dict[str, Any], source: dict[str, Any], said: str
) -> None:
    write(tmp_path, row)
    with pytest.raises(DataError) as error:
        read(recipe(tmp_path, source=source))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_system_prompt_stands_first_unless_the_prompt_has_its_own() -> None:
    own, none = prompt_turns([SYSTEM, USER]), prompt_turns([USER])
    assert not isinstance(own, str)
    assert not isinstance(none, str)
    assert with_system_prompt(none, "other") == [{"role": "system", "content": "other"}, USER]
    assert with_system_prompt(own, "other") == [SYSTEM, USER]
    assert with_system_prompt(none, None) == [USER]


def test_tools_go_with_a_prompt_and_make_it_another_one(tmp_path: Path) -> None:
    tools = [{"name": "weather"}]
    write(tmp_path, {"prompt": "a"}, {"prompt": "a", "tools": tools}, {"prompt": "a", "tools": "no JSON"})
    limits = {"max_quarantined_fraction": 0.5}
    plain, equipped = read(recipe(tmp_path, source=limits))
    assert plain.prompt_id != equipped.prompt_id
    assert equipped.template.arguments == {"tools": tools}
    question = question_of(AskedAnswer(equipped, 0), recipe(tmp_path).answers.sample)
    assert question.parameters["tools"] == tools


def test_a_prompt_may_end_with_what_a_tool_said() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather"}}]}
    turns = prompt_turns([USER, call, {"role": "tool", "content": "rain"}])
    assert isinstance(turns, tuple)
    assert turns[1]["tool_calls"] == call["tool_calls"]
