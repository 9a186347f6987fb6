import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.errors import DataError, StorageError
from mixdpo_ray.pairs.reading import (
    RawRow,
    first_columns,
    read_parquet,
    read_rows,
    row_group_count,
)

LIMIT = 1000


def write(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(file: str) -> list[RawRow]:
    return list(read_rows(file, LIMIT))


def outcomes(file: str) -> list[tuple[int, Any]]:
    return [(raw.row, raw.reason or raw.value) for raw in read(file)]


def test_lines_come_with_their_numbers_and_a_corrupt_one_stops_nothing(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"{broken", b"", b"[1]", b'{"a": "\xff"}', b'"text"', b'{"a": 2}']
    file = write(tmp_path / "rows.jsonl", b"\n".join(lines))
    assert outcomes(file) == [
        (0, {"a": 1}),
        (1, "corrupt_line"),
        (3, "corrupt_line"),
        (4, "corrupt_line"),
        (5, "corrupt_line"),
        (6, {"a": 2}),
    ]
    assert all(raw.file == file for raw in read(file))


def test_nan_infinity_and_lone_surrogates_arrive_as_they_are(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"a": NaN, "b": Infinity, "c": "\\ud83d"}\n')
    (raw,) = read(file)
    assert raw.value is not None
    assert math.isnan(raw.value["a"])
    assert (raw.value["b"], raw.value["c"]) == (math.inf, "\ud83d")


def test_a_line_that_is_too_long_is_skipped_without_being_parsed(tmp_path: Path) -> None:
    fits = json.dumps({"a": "x" * (LIMIT - 9)})
    assert len(fits) == LIMIT
    file = write(tmp_path / "rows.jsonl", "\n".join([fits, "x" * 5 * LIMIT, fits + " ", fits, "y" * (LIMIT + 1)]))
    found = [raw.reason for raw in read(file)]
    assert found == [None, "oversized_row", "oversized_row", None, "oversized_row"]


def test_nesting_without_end_is_a_corrupt_line(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", "[" * 100_000)
    assert [raw.reason for raw in read_rows(file, 1 << 20)] == ["corrupt_line"]


def test_compressed_lines_are_read_and_a_damaged_stream_is_one_refused_row_behind_the_good_ones(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"a": number, "b": "x" * 50}) + "\n" for number in range(5000))
    whole = gzip.compress(lines.encode())
    assert len(read(write(tmp_path / "whole.jsonl.gz", whole))) == 5000
    assert [raw.reason for raw in read(write(tmp_path / "noise.jsonl.gz", b"no gzip at all"))] == ["corrupt_file"]
    damaged = bytearray(whole)
    damaged[len(damaged) // 2 :] = b"\xff" * (len(damaged) - len(damaged) // 2)
    *good, last = read(write(tmp_path / "damaged.jsonl.gz", bytes(damaged)))
    assert last.reason in ("corrupt_file", "corrupt_line")
    assert all(raw.value is not None for raw in good)


def test_a_json_array_and_lines_that_call_themselves_json_are_both_read(tmp_path: Path) -> None:
    rows: list[tuple[int, Any]] = [(0, {"a": 1}), (1, {"a": 2})]
    assert outcomes(write(tmp_path / "array.json", ' [{"a": 1}, {"a": 2}]')) == rows
    assert outcomes(write(tmp_path / "lines.json", '{"a": 1}\n{"a": 2}\n')) == rows
    assert outcomes(write(tmp_path / "mixed.json", '[{"a": 1}, 5]')) == [(0, {"a": 1}), (1, "corrupt_line")]
    assert outcomes(write(tmp_path / "broken.json", '[{"a": 1}, ')) == [(-1, "corrupt_file")]


def write_groups(path: Path, rows: int, size: int) -> str:
    table = pa.table({"a": list(range(rows)), "text": [f"row {row} " * 20 for row in range(rows)]})
    pq.write_table(table, path, row_group_size=size)
    return str(path)


def test_parquet_rows_are_numbered_through_the_file_whichever_groups_are_read(tmp_path: Path) -> None:
    file = write_groups(tmp_path / "rows.parquet", 700, 300)
    assert row_group_count(file) == 3
    assert [raw.row for raw in read(file)] == list(range(700))
    second = list(read_parquet(file, range(1, 3)))
    assert [raw.row for raw in second] == list(range(300, 700))
    assert all(raw.value is not None and raw.value["a"] == raw.row for raw in second)


def test_a_parquet_file_that_is_none_is_one_refused_row(tmp_path: Path) -> None:
    whole = write_groups(tmp_path / "rows.parquet", 700, 300)
    for content in (b"PAR1 nothing", b"", Path(whole).read_bytes()[:-100]):
        file = write(tmp_path / "broken.parquet", content)
        assert outcomes(file) == [(-1, "corrupt_file")]
        assert row_group_count(file) == 1


def test_a_damaged_row_group_refuses_its_rows_and_the_others_are_read(tmp_path: Path) -> None:
    path = Path(write_groups(tmp_path / "rows.parquet", 700, 300))
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    rows = read(str(path))
    assert [raw.row for raw in rows] == list(range(700))
    assert [raw.row for raw in rows if raw.reason] == list(range(300, 600))
    assert {raw.reason for raw in rows if raw.reason} == {"corrupt_file"}


def test_a_parquet_text_that_is_not_utf8_refuses_its_row_alone(tmp_path: Path) -> None:
    """pyarrow writes and reads such bytes without complaint."""
    texts = pa.array([b"fine"] * 5 + [b"half a pair: \xed\xa0\xbd"] + [b"fine"] * 4, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    assert [raw.row for raw in read(str(tmp_path / "rows.parquet")) if raw.reason == "corrupt_line"] == [5]
    assert len(read(str(tmp_path / "rows.parquet"))) == 10


def test_a_file_that_cannot_be_reached_is_an_error_and_not_a_refused_row(tmp_path: Path) -> None:
    for name in ("gone.jsonl", "gone.json", "gone.parquet"):
        with pytest.raises(StorageError, match=name):
            read(str(tmp_path / name))


def test_columns_are_those_of_the_first_readable_row(tmp_path: Path) -> None:
    broken = write(tmp_path / "1.jsonl", "broken\n")
    good = write(tmp_path / "2.jsonl", 'broken\n{"prompt": 1, "chosen": 2}\n')
    assert first_columns([broken, good], LIMIT) == ["prompt", "chosen"]
    with pytest.raises(DataError, match=r"1.jsonl has no row that can be read"):
        first_columns([broken], LIMIT)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_file_in_another_encoding_is_refused_by_its_name(tmp_path: Path, encoding: str, name: str) -> None:
    content = '{"a": "ü"}\n'.encode(encoding) * 3
    file = write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=rf"{name} is not in UTF-8 but in UTF-16 or UTF-32: convert it"):
        read(file)


def test_the_mark_of_utf8_at_the_beginning_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    assert outcomes(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')) == [(0, {"a": 1}), (1, {"a": 2})]


def test_a_line_in_another_encoding_is_refused_alone(tmp_path: Path) -> None:
    lines = b'{"a": 1}\n' + '{"a": 2}'.encode("utf-16-le") + b'\n{"a": 3}\n'
    assert outcomes(write(tmp_path / "a.jsonl", lines)) == [(0, {"a": 1}), (1, "corrupt_line"), (2, {"a": 3})]
