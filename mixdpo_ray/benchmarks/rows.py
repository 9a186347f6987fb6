"""Rows of benchmark files: JSON lists and JSON lines, from wherever a path leads, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.errors import EvaluationError

FileRow = Mapping[str, Any]


def read_text(path: str) -> str:
    try:
        return storage.read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 ({error}); give the benchmark's own file") from None


def read_json_rows(path: str) -> list[FileRow]:
    """The objects of a JSON list, or one a line."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows = _parsed(text, path)
    else:
        rows = [_parsed(line, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise EvaluationError(f"{path}: no list of JSON objects; give the benchmark's own file")
    return list(rows)


def field_of(row: FileRow, name: str, path: str) -> Any:
    if name not in row:
        raise EvaluationError(f"{path}: a row lacks {name!r} (it has {', '.join(row)}); give the benchmark's own file")
    return row[name]


def text_of(row: FileRow, name: str, path: str) -> str:
    value = field_of(row, name, path)
    if not isinstance(value, str):
        raise EvaluationError(f"{path}: {name!r} of a row is no text ({repr(value)[:60]}); give one, and not messages")
    return value


def by_item(rows: Sequence[tuple[str, Any]], path: str) -> dict[str, Any]:
    """Rows by item, each once."""
    found: dict[str, Any] = {}
    for item, value in rows:
        if item in found:
            raise EvaluationError(f"{path}: {item[:60]!r} is there twice; keep one row of each prompt")
        found[item] = value
    return found


def json_lines(rows: Iterable[FileRow]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise EvaluationError(f"{where}: no JSON ({error}); the file may be cut short, fetch it again") from None
