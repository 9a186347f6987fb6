"""The official tools' files of answers and judgements, so that they can take over and their results can be read.

AlpacaEval: a JSON list of instruction, output and generator. Arena-Hard: JSON lines of answers and of judgements, by
uid and messages; answers of its first version, by question_id and choices, are read too, as are MT-Bench's. Counts of
tokens and markdown are added to answers by Arena-Hard's own script.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.rows import FileRow, by_item, field_of, json_lines, read_json_rows, text_of
from mixdpo_ray.errors import EvaluationError


def alpaca_outputs(model: str, prompts: Sequence[BenchmarkPrompt], answers: Mapping[str, tuple[str, ...]]) -> bytes:
    """outputs.json."""
    rows = [
        {
            "dataset": prompt.category,
            "instruction": prompt.turns[0],
            "output": answers[prompt.item][0],
            "generator": model,
        }
        for prompt in prompts
        if prompt.item in answers
    ]
    return (json.dumps(rows, indent=2) + "\n").encode()


def read_alpaca_outputs(path: str, prompts: Sequence[BenchmarkPrompt]) -> dict[str, tuple[str, ...]]:
    """Answers by item, joined by the instruction's text."""
    rows = read_json_rows(path)
    outputs = by_item([(text_of(row, "instruction", path), text_of(row, "output", path)) for row in rows], path)
    found: dict[str, tuple[str, ...]] = {
        prompt.item: (outputs[prompt.turns[0]],) for prompt in prompts if prompt.turns[0] in outputs
    }
    if len(found) < len(outputs):
        strange = next(text for text in outputs if text not in {prompt.turns[0] for prompt in prompts})
        raise EvaluationError(f"{path}: {strange[:60]!r} is no prompt of the benchmark; give answers to its prompts")
    return found


def arena_answers(model: str, prompts: Sequence[BenchmarkPrompt], answers: Mapping[str, tuple[str, ...]]) -> bytes:
    """model_answer/MODEL.jsonl."""
    return json_lines(
        {
            "uid": prompt.item,
            "ans_id": f"{model}-{prompt.item}",
            "model": model,
            "messages": [
                {"role": "user", "content": prompt.turns[0]},
                {"role": "assistant", "content": {"answer": answers[prompt.item][0]}},
            ],
        }
        for prompt in prompts
        if prompt.item in answers
    )


def read_arena_answers(path: str) -> dict[str, dict[str, str]]:
    """Each model's answers by item, of both versions of the format."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_json_rows(path):
        model = str(row.get("model") or field_of(row, "model_id", path))
        item = str(row.get("uid") or field_of(row, "question_id", path))
        found[model].append((item, _answer(row, path)))
    return {model: by_item(rows, path) for model, rows in found.items()}


def arena_judgements(
    model: str,
    judge: str,
    baselines: Mapping[str, str],
    prompts: Sequence[BenchmarkPrompt],
    games: Mapping[str, Sequence[tuple[str | None, str]]],
) -> bytes:
    """model_judgment/JUDGE/MODEL.jsonl, of each prompt's two games: the mark (None: unreadable), the judge's words."""
    return json_lines(
        {
            "uid": prompt.item,
            "category": prompt.category,
            "judge": judge,
            "model": model,
            "baseline": baselines.get(prompt.category, baselines.get("", "")),
            "games": [{"score": mark, "judgment": {"answer": words}} for mark, words in games[prompt.item]],
        }
        for prompt in prompts
        if prompt.item in games
    )


def read_arena_judgements(path: str) -> dict[str, dict[str, tuple[str | None, ...]]]:
    """Each model's marks by item: game 1 shows the baseline as A, game 2 the model."""
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for row in read_json_rows(path):
        item = str(row.get("uid") or field_of(row, "question_id", path))
        marks = tuple(game.get("score") if game else None for game in field_of(row, "games", path))
        found[str(field_of(row, "model", path))].append((item, marks))
    return {model: by_item(rows, path) for model, rows in found.items()}


def read_turns(path: str) -> dict[str, tuple[str, ...]]:
    """MT-Bench's answers of one model by question: the texts of the turns."""
    rows = [
        (str(field_of(row, "question_id", path)), tuple(field_of(row, "choices", path)[0]["turns"]))
        for row in read_json_rows(path)
    ]
    return by_item(rows, path)


def mt_bench_answers(model: str, answers: Mapping[str, tuple[str, ...]]) -> bytes:
    """model_answer/MODEL.jsonl of MT-Bench."""
    return json_lines(
        {
            "question_id": int(item) if item.isdecimal() else item,
            "answer_id": f"{model}-{item}",
            "model_id": model,
            "choices": [{"index": 0, "turns": list(turns)}],
        }
        for item, turns in answers.items()
    )


def _answer(row: FileRow, path: str) -> str:
    if "messages" in row:
        content = row["messages"][-1]["content"]
        return str(content["answer"] if isinstance(content, dict) else content)
    return str(field_of(row, "choices", path)[0]["turns"][0]["content"])
