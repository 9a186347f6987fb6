"""Runs of lines cover a file exactly, wherever the cuts fall."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.pairs.line_ranges import LineRange, line_ranges
from mixdpo_ray.pairs.reading import read_json_lines


def write(path: Path, lines: list[str], end: str = "\n") -> str:
    path.write_text("\n".join(lines) + end)
    return str(path)


def test_a_cut_falls_on_the_first_line_that_begins_behind_it(tmp_path: Path) -> None:
    # lines of 4 bytes begin at 0, 4, 8, 12; five bytes on from 0 the next line is the one at 8
    file = write(tmp_path / "a.jsonl", ["111", "222", "333", "444"])
    assert line_ranges(file, 5) == [LineRange(0, 0, 2), LineRange(8, 2, None)]


@pytest.mark.parametrize("bytes_each", [1, 7, 64, 1000, 10**6])
@pytest.mark.parametrize("end", ["\n", "", "\n\n"])
def test_the_runs_together_read_what_the_whole_file_reads(tmp_path: Path, bytes_each: int, end: str) -> None:
    values = [json.dumps({"n": n, "text": "x" * (n * 37 % 90)}) for n in range(60)]
    values[10] = ""  # a blank line counts
    values[20] = "{broken"
    values[30] = json.dumps({"text": "y" * 500})  # too long for a row
    file = write(tmp_path / "a.jsonl", values, end)
    whole = list(read_json_lines(file, 200))
    pieces = [raw for lines in line_ranges(file, bytes_each) for raw in read_json_lines(file, 200, lines)]
    assert pieces == whole
    assert [raw.reason for raw in whole if raw.reason] == ["corrupt_line", "oversized_row"]


def test_blocks_of_the_counting_pass_do_not_matter(tmp_path: Path) -> None:
    # a line across the first mebibyte, which is what is counted at once
    file = write(tmp_path / "a.jsonl", [json.dumps({"text": "z" * size}) for size in (1_048_500, 200, 2_500_000, 5)])
    ranges = line_ranges(file, 1_048_570)
    assert [lines.first_row for lines in ranges] == [0, 2, 3]
    rows = [raw.row for lines in ranges for raw in read_json_lines(file, 10**7, lines)]
    assert rows == [0, 1, 2, 3]


def test_an_empty_file_is_one_empty_run(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [], "")
    assert [list(read_json_lines(file, 100, lines)) for lines in line_ranges(file, 10)] == [[]]
