"""The official files, written and read back; old forms are read, and what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.interchange import (
    alpaca_outputs,
    arena_answers,
    arena_judgements,
    mt_bench_answers,
    read_alpaca_outputs,
    read_arena_answers,
    read_arena_judgements,
    read_turns,
)
from mixdpo_ray.benchmarks.rows import read_json_rows
from mixdpo_ray.errors import EvaluationError
from tests.benchmarks.made_benchmarks import write_json, write_lines

PROMPTS = [BenchmarkPrompt("9", ("Hi \n?",), "d"), BenchmarkPrompt("4", ("Zwölf",), "d"), BenchmarkPrompt("0", ("x",))]
ANSWERS = {"4": ("ja\u2028nein \ud83d",), "9": ('"quoted"',)}


def test_alpacas_outputs_come_back_joined_by_instruction(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    path.write_bytes(alpaca_outputs("mine", PROMPTS, ANSWERS))
    assert json.loads(path.read_text("utf-8"))[0] == {
        "dataset": "d",
        "instruction": "Hi \n?",
        "output": '"quoted"',
        "generator": "mine",
    }
    assert read_alpaca_outputs(str(path), PROMPTS[::-1]) == ANSWERS
    with pytest.raises(EvaluationError, match="'Zwölf' is no prompt of the benchmark"):
        read_alpaca_outputs(str(path), PROMPTS[:1])
    twice = write_json(tmp_path / "twice.json", [{"instruction": "x", "output": "1"}] * 2)
    with pytest.raises(EvaluationError, match="'x' is there twice"):
        read_alpaca_outputs(twice, PROMPTS)


def test_arenas_answers_come_back_in_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(arena_answers("mine", PROMPTS, ANSWERS))
    assert read_arena_answers(str(path)) == {"mine": {item: turns[0] for item, turns in ANSWERS.items()}}
    row: dict[str, object] = {
        "question_id": "0",
        "model_id": "old",
        "choices": [{"index": 0, "turns": [{"content": "x", "token_len": 1}]}],
    }
    assert read_arena_answers(write_lines(tmp_path / "old.jsonl", [row])) == {"old": {"0": "x"}}


def test_arenas_judgements_come_back_with_their_missing_games(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    games: dict[str, list[tuple[str | None, str]]] = {
        "9": [("A>B", "I say [[A>B]]"), (None, "hm")],
        "4": [("B>>A", ""), ("A=B", "")],
    }
    prompts = [PROMPTS[0], replace(PROMPTS[1], category="c"), PROMPTS[2]]
    baselines = {"d": "base", "c": "other"}
    path.write_bytes(arena_judgements("mine", "judge", baselines, prompts, games))
    assert read_arena_judgements(str(path)) == {"mine": {"9": ("A>B", None), "4": ("B>>A", "A=B")}}
    assert [row["baseline"] for row in read_json_rows(str(path))] == ["base", "other"]
    lost: dict[str, object] = {"uid": "0", "model": "mine", "games": [None, {"score": "A>B"}]}
    assert read_arena_judgements(write_lines(tmp_path / "lost.jsonl", [lost])) == {"mine": {"0": (None, "A>B")}}


def test_mt_benchs_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(mt_bench_answers("mine", {"81": ("one", "two")}))
    assert read_turns(str(path)) == {"81": ("one", "two")}
    assert read_json_rows(str(path))[0]["question_id"] == 81


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1}\n{"a": ', "line 2: no JSON"),
        (b'[{"a": 1}', "no JSON"),
        (b"[1, 2]", "no list of JSON objects"),
        (b"", "no list of JSON objects"),
        (b"\xff", "not UTF-8"),
        (b'{"question_id": 1}\n', "a row lacks 'choices'"),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(EvaluationError, match=reason) as refused:
        read_turns(str(tmp_path / "x.jsonl"))
    assert str(refused.value).startswith(str(tmp_path / "x.jsonl"))
    assert "\n" not in str(refused.value)
