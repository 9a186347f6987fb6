"""What a source file holds, by its name's ending: the endings that are read, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from mixdpo_ray.errors import DataError

COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
FILE_KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def _listed(endings: Sequence[str]) -> str:
    return f"{', '.join(endings[:-1])} or {endings[-1]}"


READABLE = f"{_listed(tuple(FILE_KINDS))}, also with {_listed(COMPRESSIONS)}"


def kind_by_name(file: str) -> str | None:
    """parquet, json or jsonl; None for what is no source file."""
    name = PurePosixPath(file)
    return FILE_KINDS.get(PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix)


def file_kind(file: str) -> str:
    """The kind of a file that is meant as a source."""
    kind = kind_by_name(file)
    if kind is None:
        raise DataError(f"{file} ends in none of {READABLE}: rename or convert it")
    return kind


def is_plain_lines(file: str) -> bool:
    """Whether it has lines that can be found without reading what stands before them."""
    return FILE_KINDS.get(PurePosixPath(file).suffix) == "jsonl"
