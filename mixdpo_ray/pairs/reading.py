"""Source files to rows with their file and row number. What cannot be read is a row with a reason; the rest goes on.

Ray's and pyarrow's JSON readers fail a whole file for one corrupt line, lose NaN and row numbers, and alter lone
surrogates: lines are read here one by one. Rows are numbered from 0 (jsonl: lines, blank ones too); -1 is a whole file.
Damage in a file is refused row by row; a file that cannot be reached stops everything: it might be half of the data.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from mixdpo_ray import storage
from mixdpo_ray.errors import DataError, StorageError
from mixdpo_ray.pairs.file_kinds import file_kind, kind_by_name
from mixdpo_ray.pairs.line_ranges import LineRange

READ_ROWS = 256


@dataclass(frozen=True)
class RawRow:
    file: str
    row: int
    value: dict[str, Any] | None
    reason: str | None = None  # a key of checking.REASONS; then there is no value


def expand_paths(path: str | Sequence[str]) -> list[str]:
    """The files of paths, globs and folders, each once, in the order of their names."""
    paths = [path] if isinstance(path, str) else list(path)
    files = dict.fromkeys(file for one in paths for file in _expand(one))
    return list(files)


def read_rows(file: str, max_row_bytes: int) -> Iterator[RawRow]:
    """Any file that expand_paths finds."""
    kind = file_kind(file)
    if kind == "parquet":
        return read_parquet(file)
    return read_json(file, max_row_bytes) if kind == "json" else read_json_lines(file, max_row_bytes)


def first_columns(files: Iterable[str], max_row_bytes: int) -> list[str]:
    """Column names, for detecting the format: of the first file that has a readable row among its first ones."""
    for file in files:
        for raw in islice(read_rows(file, max_row_bytes), 100):
            if raw.value is not None:
                return list(raw.value)
    raise DataError("data.source: no file has a row that can be read")


def read_json_lines(file: str, max_row_bytes: int, lines: LineRange | None = None) -> Iterator[RawRow]:
    """One JSON object a line. NaN and lone surrogates arrive as they are, to be refused by name."""
    first_row, rows = (lines.first_row, lines.rows) if lines else (0, None)
    row = first_row - 1
    try:
        with _open(file) if lines is None else _open_at(file, lines.start) as stream:
            for row, line in enumerate(islice(_lines(stream, max_row_bytes), rows), first_row):
                if line is None:
                    yield RawRow(file, row, None, "oversized_row")
                elif line.strip():
                    yield _parsed(file, row, line)
    except OSError as error:  # what a damaged compressed stream raises
        _raise_unless_damaged(file, error)
        yield RawRow(file, row + 1 or -1, None, "corrupt_file")


def read_json(file: str, max_row_bytes: int) -> Iterator[RawRow]:
    """A JSON array of objects; files that are called .json but hold lines are read as lines."""
    try:
        with _open(file) as stream:
            if stream.read(64).lstrip()[:1] != b"[":
                yield from read_json_lines(file, max_row_bytes)
                return
        with _open(file) as stream:
            values = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        _raise_unless_damaged(file, error)
        yield RawRow(file, -1, None, "corrupt_file")
        return
    for row, value in enumerate(values):
        yield RawRow(file, row, value) if isinstance(value, dict) else RawRow(file, row, None, "corrupt_line")


def read_parquet(file: str, row_groups: range | None = None) -> Iterator[RawRow]:
    """The rows of these row groups, all of them where none are named."""
    try:
        filesystem, inner = storage.open_filesystem(file)
        with filesystem.open_input_file(inner) as stream, pq.ParquetFile(stream) as parquet:
            metadata = parquet.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            for group in row_groups if row_groups is not None else range(len(sizes)):
                yield from _read_row_group(file, parquet, group, range(sum(sizes[:group]), sum(sizes[: group + 1])))
    except (OSError, pa.ArrowException) as error:
        _raise_unless_damaged(file, error)
        yield RawRow(file, -1, None, "corrupt_file")


def row_group_count(file: str) -> int:
    """How a parquet file can be split among readers; 1 where it is damaged, so that one of them reports it."""
    try:
        filesystem, inner = storage.open_filesystem(file)
        with filesystem.open_input_file(inner) as stream:
            return int(pq.read_metadata(stream).num_row_groups)
    except (OSError, pa.ArrowException) as error:
        _raise_unless_damaged(file, error)
        return 1


def _read_row_group(file: str, parquet: pq.ParquetFile, group: int, rows: range) -> Iterator[RawRow]:
    """The rows of a damaged group that could not be read are all refused: their number is known."""
    row = rows.start
    try:
        for batch in parquet.iter_batches(READ_ROWS, row_groups=[group]):
            yield from _values(file, row, batch)
            row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        _raise_unless_damaged(file, error)
        yield from (RawRow(file, lost, None, "corrupt_file") for lost in range(row, rows.stop))


def _values(file: str, first_row: int, batch: pa.RecordBatch) -> list[RawRow]:
    try:
        return [RawRow(file, first_row + i, value) for i, value in enumerate(batch.to_pylist())]
    except UnicodeDecodeError:  # parquet does not check that its strings are UTF-8: find the row that is not
        if len(batch) == 1:
            return [RawRow(file, first_row, None, "corrupt_line")]
        middle = len(batch) // 2
        return [
            *_values(file, first_row, batch.slice(0, middle)),
            *_values(file, first_row + middle, batch.slice(middle)),
        ]


def _parsed(file: str, row: int, line: bytes) -> RawRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    return RawRow(file, row, value) if isinstance(value, dict) else RawRow(file, row, None, "corrupt_line")


def _lines(stream: io.BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """None for a line that is too long, which is skipped without being held."""
    while line := stream.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
            continue
        while (rest := stream.readline(max_bytes)) and not rest.endswith(b"\n"):
            pass
        yield None


def _open(file: str) -> io.BufferedReader:
    filesystem, inner = storage.open_filesystem(file)
    return io.BufferedReader(filesystem.open_input_stream(inner, compression="detect"), 1 << 20)


def _open_at(file: str, start: int) -> io.BufferedReader:
    """Behind its first bytes; not for compressed files."""
    filesystem, inner = storage.open_filesystem(file)
    stream = filesystem.open_input_file(inner)
    stream.seek(start)
    return io.BufferedReader(stream, 1 << 20)


def _raise_unless_damaged(file: str, error: Exception) -> None:
    """The operating system's refusals have a number; an object store's cannot be told from damage, so they stop too."""
    if isinstance(error, OSError) and (error.errno is not None or not storage.is_local(file)):
        raise StorageError(f"{file}: {error}; check that it exists, is whole, and that you may read it") from error


def _expand(path: str) -> list[str]:
    filesystem, inner = storage.open_filesystem(path)
    with storage.explained(path):
        is_there = filesystem.get_file_info(inner).type != pafs.FileType.NotFound
        found = _inside(filesystem, inner) if is_there else _glob(filesystem, inner)
    if not found:
        raise DataError(f"data.source.path {path}: no .parquet, .jsonl or .json file there; check the path")
    return [file if storage.is_local(path) else f"{path.split('://')[0]}://{file}" for file in sorted(found)]


def _glob(filesystem: pafs.FileSystem, pattern: str) -> list[str]:
    """Files that match * and ? (within one folder), [...] and ** (any folders)."""
    fixed = re.split(r"[*?\[]", pattern)[0]
    if fixed == pattern:
        return []
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    matcher = re.compile("".join(part if part.startswith("[") else signs.get(part, re.escape(part)) for part in parts))
    folder = fixed.rpartition("/")[0] or "/"
    infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    return [info.path for info in infos if info.type == pafs.FileType.File and matcher.fullmatch(info.path)]


def _inside(filesystem: pafs.FileSystem, inner: str) -> list[str]:
    """The file itself, or the data files anywhere inside a folder; hidden and other ones are left out."""
    if filesystem.get_file_info(inner).type == pafs.FileType.File:
        return [inner]
    infos = filesystem.get_file_info(pafs.FileSelector(inner, recursive=True))
    files = [info.path for info in infos if info.type == pafs.FileType.File]
    return [file for file in files if _is_data(PurePosixPath(file).relative_to(inner))]


def _is_data(name: PurePosixPath) -> bool:
    visible = not any(part.startswith((".", "_")) for part in name.parts)
    return visible and kind_by_name(name.name) is not None
