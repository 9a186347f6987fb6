"""Source files to rows with their file and row number. What cannot be read is a row with a reason; the rest goes on.

Ray's and pyarrow's JSON readers fail a whole file for one corrupt line, lose NaN and row numbers, and alter lone
surrogates: lines are read here one by one. Rows are numbered from 0 (jsonl: lines, blank ones too); -1 is a whole file.
Damage in a file is refused row by row; a file that cannot be reached stops everything: it might be half of the data.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo_ray import storage
from mixdpo_ray.errors import DataError, StorageError
from mixdpo_ray.pairs.file_kinds import file_kind
from mixdpo_ray.pairs.line_ranges import LineRange

READ_ROWS = 256
MARKS = (b"\xff\xfe", b"\xfe\xff")  # of the order of bytes, where a character takes two or four of them


@dataclass(frozen=True)
class RawRow:
    file: str
    row: int
    value: dict[str, Any] | None
    reason: str | None = None  # a key of checking.REASONS; then there is no value


def read_rows(file: str, max_row_bytes: int) -> Iterator[RawRow]:
    """Any file that expand_paths finds."""
    kind = file_kind(file)
    if kind == "parquet":
        return read_parquet(file)
    return read_json(file, max_row_bytes) if kind == "json" else read_json_lines(file, max_row_bytes)


def first_columns(files: Sequence[str], max_row_bytes: int) -> list[str]:
    """Column names, for detecting the format: of the first file that has a readable row among its first ones."""
    for file in files:
        for raw in islice(read_rows(file, max_row_bytes), 100):
            if raw.value is not None:
                return list(raw.value)
    raise DataError(f"data.source: {_unreadable(files)}")


def _unreadable(files: Sequence[str]) -> str:
    """What is wrong with files of which none gives a row."""
    empty = all(_bytes_of(file) == 0 for file in files)
    wrong = "is empty" if empty else "has no row that can be read"
    if len(files) == 1:
        return f"{files[0]} {wrong}: give a file of pairs"
    return f"each of its {len(files)} files, the first {files[0]}, {wrong}: give files of pairs"


def _bytes_of(file: str) -> int | None:
    filesystem, inner = storage.open_filesystem(file)
    with storage.explained(file):
        size: int | None = filesystem.get_file_info(inner).size
    return size


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
    try:  # left alone, json guesses the encoding of every line anew
        value = json.loads(line.decode("utf-8-sig", "surrogatepass"))
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
    stream = io.BufferedReader(filesystem.open_input_stream(inner, compression="detect"), 1 << 20)
    _refuse_other_encodings(file, stream)
    return stream


def _open_at(file: str, start: int) -> io.BufferedReader:
    """Behind its first bytes; not for compressed files."""
    filesystem, inner = storage.open_filesystem(file)
    stream = filesystem.open_input_file(inner)
    stream.seek(start)
    reader = io.BufferedReader(stream, 1 << 20)
    if start == 0:
        _refuse_other_encodings(file, reader)
    return reader


def _refuse_other_encodings(file: str, stream: io.BufferedReader) -> None:
    """JSON begins with two characters that UTF-8 writes in two bytes; others put a mark or zeros there."""
    first = stream.peek(4)[:4]
    if first.startswith(MARKS) or b"\0" in first:
        raise DataError(f"{file} is not in UTF-8 but in UTF-16 or UTF-32: convert it, as with iconv -f UTF-16 -t UTF-8")


def _raise_unless_damaged(file: str, error: Exception) -> None:
    """The operating system's refusals have a number; an object store's cannot be told from damage, so they stop too."""
    if isinstance(error, OSError) and (error.errno is not None or not storage.is_local(file)):
        raise StorageError(f"{file}: {error}; check that it exists, is whole, and that you may read it") from error
