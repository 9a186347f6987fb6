"""Files are cut into pieces that together read every row once, with the numbers it has in its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.pairs.reading import RawRow, read_rows
from mixdpo_ray.preparation.file_slices import MOST_SHARES, SLICE_ROWS, FileSlice, slices_of
from mixdpo_ray.preparation.write_sorted import boundaries


def parquet(path: Path, rows: int, row_group_size: int) -> str:
    pq.write_table(pa.table({"n": np.arange(rows)}), path, row_group_size=row_group_size)
    return str(path)


def read(file_slices: list[FileSlice]) -> list[RawRow]:
    return [raw for file_slice in file_slices for raw in file_slice.read(max_row_bytes=1000)]


@pytest.mark.parametrize(
    ("rows", "row_group_size", "file_slices"),
    [
        (100, 10, 1),  # ten small row groups are one piece
        (3 * SLICE_ROWS, 500, 3),  # runs of four
        (3 * SLICE_ROWS, 10**6, 3),  # one large group is shared out
        (20 * SLICE_ROWS, 10**6, MOST_SHARES),  # but only so far
        (SLICE_ROWS + 1, 10**6, 1),
        (0, 10, 1),
    ],
)
def test_pieces_of_a_parquet_file_cover_it_once(
    tmp_path: Path, rows: int, row_group_size: int, file_slices: int
) -> None:
    file = parquet(tmp_path / "a.parquet", rows, row_group_size)
    assert len(slices_of(file)) == file_slices
    assert read(slices_of(file)) == list(read_rows(file, 1000)) == [RawRow(file, n, {"n": n}) for n in range(rows)]


def test_a_damaged_row_group_is_reported_row_by_row_however_it_is_shared(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", 4 * SLICE_ROWS, 10**6)
    metadata = pq.read_metadata(file)
    file_slices = slices_of(file)
    content = bytearray(Path(file).read_bytes())
    chunk = metadata.row_group(0).column(0)
    content[chunk.data_page_offset : chunk.data_page_offset + 60] = b"\xff" * 60
    Path(file).write_bytes(content)
    assert len(file_slices) == 4
    assert {raw.reason for raw in read(file_slices)} == {"corrupt_file"}
    assert [raw.row for raw in read(file_slices)] == list(range(4 * SLICE_ROWS))


def test_a_file_that_is_no_parquet_is_one_piece_and_one_refused_row(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 nothing of the kind")
    assert read(slices_of(str(file))) == [RawRow(str(file), -1, None, "corrupt_file")]


def test_parts_begin_at_row_groups_and_hold_about_so_many_tokens() -> None:
    # 1,000 rows of 20 tokens; 5,000 tokens are 250 rows, that is 3 row groups of 64
    assert boundaries(1000, 20_000, part_tokens=5_000) == [192, 384, 576, 768, 960]
    assert boundaries(1000, 20_000, part_tokens=10**9) == []
    assert boundaries(130, 10**9, part_tokens=10) == [64, 128]
