"""How files are cut into pieces that one task reads. The cut decides speed only: rows keep their file and number.

A piece of a parquet file is a run of row groups of about ROWS rows. Files that were written as one huge row group are
shared out inside it, a few ways at most, because every reader decodes the rows that it skips. A piece of a jsonl file
is a run of lines; compressed files and JSON arrays stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo_ray import storage
from mixdpo_ray.pairs.line_ranges import LineRange, line_ranges
from mixdpo_ray.pairs.reading import RawRow, read_json_lines, read_parquet, read_rows
from mixdpo_ray.pairs.source_files import LINES, file_kind

SLICE_ROWS = 2_000
BYTES = 4 << 20
MOST_SHARES = 8


@dataclass(frozen=True)
class FileSlice:
    file: str
    row_groups: tuple[int, int] | None = None  # first and behind the last; None is the whole file
    skip: int = 0  # rows inside the row groups
    take: int | None = None
    lines: LineRange | None = None

    def read(self, max_row_bytes: int) -> Iterator[RawRow]:
        if self.lines is not None:
            return read_json_lines(self.file, max_row_bytes, self.lines)
        if self.row_groups is None:
            return read_rows(self.file, max_row_bytes)
        rows = read_parquet(self.file, range(*self.row_groups))
        return islice(rows, self.skip, None if self.take is None else self.skip + self.take)


def slices_of(file: str) -> list[FileSlice]:
    if file_kind(file) == "parquet":
        return parquet_slices(file)
    if file.endswith(LINES):
        return [FileSlice(file, lines=lines) for lines in line_ranges(file, BYTES)]
    return [FileSlice(file)]


def parquet_slices(file: str) -> list[FileSlice]:
    try:
        filesystem, inner = storage.open_filesystem(file)
        with filesystem.open_input_file(inner) as stream:
            metadata = pq.read_metadata(stream)
    except (OSError, pa.ArrowException):
        return [FileSlice(file)]  # whoever reads it reports it
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [file_slice for run in _runs(sizes) for file_slice in _shares(file, run, sum(sizes[run[0] : run[1]]))]


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring row groups, together about ROWS rows."""
    first, rows = 0, 0
    for group, size in enumerate(sizes):
        rows += size
        if rows >= SLICE_ROWS or group == len(sizes) - 1:
            yield first, group + 1
            first, rows = group + 1, 0


def _shares(file: str, run: tuple[int, int], rows: int) -> list[FileSlice]:
    shares = min(max(1, rows // SLICE_ROWS), MOST_SHARES) if run[1] - run[0] == 1 else 1
    edges = [rows * share // shares for share in range(shares + 1)]
    file_slices = [FileSlice(file, run, low, high - low) for low, high in pairwise(edges)]
    # the last share has no end: a damaged group may give one row more, the one that says so
    return [*file_slices[:-1], FileSlice(file, run, edges[-2], None)]
