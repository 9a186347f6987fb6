"""The measurements measure what they say, and what a rank reads is bounded by its own pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.tables.parquet import ROW_GROUP
from tests.measure.scale.counted import COUNTS, counted
from tests.measure.scale.growth import exponent, table
from tests.measure.scale.made_table import write_index_only, write_table
from tests.measure.scale.opening import measure as measure_opening
from tests.measure.scale.room import scratch
from tests.measure.scale.rows import Draw, scored
from tests.measure.scale.watch import Watch

PAIRS = 2_000


def test_growth_is_the_exponent_of_a_power_law() -> None:
    assert exponent([10, 100, 1000], [3, 300, 30_000]) == pytest.approx(2)
    assert exponent([10, 20], [7.5, 7.5]) == pytest.approx(0)
    assert exponent([10], [7.5]) is None
    assert table([{"n": 1, "s": 2.0}, {"n": 4, "s": 4.0}], "n").splitlines()[-1].split() == ["growth", "^0.50"]


def test_a_scratch_folder_is_refused_where_the_disk_is_full_and_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="measure fewer pairs"), scratch(tmp_path, 0, keep_gib=10**9):
        pytest.fail("there is no room")
    with pytest.raises(FileNotFoundError), scratch(tmp_path, 0, keep_gib=0) as folder:
        (folder / "missing" / "file").write_text("this is the error")
    assert list(tmp_path.iterdir()) == []


def test_rows_are_the_same_whoever_draws_them_and_as_long_as_they_say() -> None:
    draw = Draw(40_000, 50_000)
    lengths = draw.lengths(draw.generator())
    assert [round(float(lengths[name].mean()), -1) for name in lengths] == [160, 290, 290]
    few = Draw(7, 3)
    assert scored(few, few.generator()) == scored(few, few.generator())


def test_reading_is_counted_and_gives_the_same_rows(tmp_path: Path) -> None:
    written = write_table(tmp_path, PAIRS, fraction=0.1)
    COUNTS.clear()
    read = type(written).open(counted(tmp_path))
    assert COUNTS.bytes == (tmp_path / "manifest.json").stat().st_size
    positions = np.arange(PAIRS)
    assert read.read("train", positions).equals(written.read("train", positions))


def test_a_rank_reads_the_row_groups_of_its_pairs_and_a_footer(tmp_path: Path) -> None:
    written = write_table(tmp_path, PAIRS)
    path = Path(written.parts("train")[0].path)
    groups = pq.read_metadata(path).num_row_groups
    read = type(written).open(counted(tmp_path))
    positions = np.arange(0, PAIRS, PAIRS // 10)
    assert len(set(positions // ROW_GROUP)) == 10
    COUNTS.clear()
    read.read("train", positions)
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    largest = max(pq.read_metadata(path).row_group(number).total_byte_size for number in range(groups))
    assert footer < COUNTS.bytes <= (1 << 16) + footer + 10 * 1.1 * largest


def test_opening_reads_less_than_an_eighth_of_the_index(tmp_path: Path) -> None:
    """Margins and lengths; the ids, which are most of it, stay where they are."""
    write_index_only(tmp_path, 300_000)
    row = measure_opening(tmp_path, global_batch=64, world=8)
    assert row["pairs"] == 300_000
    whole = (tmp_path / "train" / "index.parquet").stat().st_size / 2**20
    assert 0 < row["read MiB"] < whole / 8


def test_a_watch_sees_memory_and_disk(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch:
        held = np.ones(50 << 17)  # 50 MiB
        (tmp_path / "file").write_bytes(bytes(3 << 20))
        watch.look()
    assert held.sum() == 50 << 17
    assert watch.all_mib >= 50
    assert watch.own_mib >= 50
    assert watch.disk_mib == 3
