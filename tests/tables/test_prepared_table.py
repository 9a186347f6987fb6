from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables.parquet import ROW_GROUP
from mixdpo_ray.tables.prepared_table import (
    PREPARED_SCHEMA,
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)


def rows_from(first: int, count: int) -> pa.Table:
    """Row p has pair id 'p', p % 3 + 1 prompt tokens, p % 5 + 1 chosen tokens and 2 rejected ones."""
    positions = range(first, first + count)
    return pa.table(
        {
            "position": list(positions),
            "pair_id": [str(p) for p in positions],
            "prompt_ids": [[p] * (p % 3 + 1) for p in positions],
            "chosen_ids": [[p] * (p % 5 + 1) for p in positions],
            "rejected_ids": [[p, p] for p in positions],
            "score_chosen": [5.0] * count,
            "score_rejected": [4.0] * count,
            "margin": [1000.0 - p for p in positions],
        },
        PREPARED_SCHEMA,
    )


def write_table(folder: str, counts: tuple[int, ...] = (1, 200, 63)) -> PreparedTable:
    firsts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    tables = [rows_from(first, count) for first, count in zip(firsts, counts, strict=False)]
    for table in reversed(tables):  # workers finish in any order
        write_part(folder, "train", table)
    write_index(folder, "train", pa.concat_tables([index_rows(table) for table in tables]))
    split = SplitFacts(rows=firsts[-1], first_positions=tuple(firsts[:-1]))
    commit(folder, Manifest(fingerprint="f", splits={"train": split}, rows_in=firsts[-1], rows_kept=firsts[-1]))
    return PreparedTable.open(folder)


def test_reading_gives_the_rows_in_the_order_of_the_positions(tmp_path: Path) -> None:
    table = write_table(str(tmp_path))
    positions = np.array([263, 0, 64, 1, 200, 201, 64])
    rows = table.read("train", positions)
    assert rows["position"].to_pylist() == positions.tolist()
    assert rows["prompt_ids"].to_pylist() == [[p] * (p % 3 + 1) for p in positions.tolist()]


def test_a_table_without_a_metric_of_its_own_goes_by_its_margins_and_one_with_it_goes_by_that(tmp_path: Path) -> None:
    plain = write_table(str(tmp_path / "old"))
    assert plain.index("train").difficulty is plain.index("train").margin
    folder, rows = str(tmp_path / "new"), rows_from(0, 5)
    rows = rows.append_column("difficulty", pa.array([0.5, 0.25, 0.0, -1.0, -3.0]))
    write_part(folder, "train", rows.append_column("flipped", pa.array([True, False, False, True, False])))
    write_index(folder, "train", index_rows(rows))
    split = SplitFacts(rows=5, first_positions=(0,))
    commit(folder, Manifest(fingerprint="f", splits={"train": split}, rows_in=5, rows_kept=5))
    table = PreparedTable.open(folder)
    assert table.index("train").difficulty.tolist() == [0.5, 0.25, 0.0, -1.0, -3.0]
    assert table.index("train").margin.tolist() == [1000.0, 999.0, 998.0, 997.0, 996.0]
    assert table.column("train", "flipped").to_pylist() == [True, False, False, True, False]
    assert table.read("train", np.array([4, 0]))["difficulty"].to_pylist() == [-3.0, 0.5]


def test_any_positions_are_found_whatever_the_parts_and_row_groups(tmp_path: Path) -> None:
    table = write_table(str(tmp_path), (5, 64, 65, 1, 130))
    generator = np.random.default_rng(0)
    for size in (1, 7, 100, 265):
        positions = generator.choice(265, size, replace=False)
        assert table.read("train", positions)["pair_id"].to_pylist() == [str(p) for p in positions]


def test_reading_no_positions_gives_no_rows(tmp_path: Path) -> None:
    rows = write_table(str(tmp_path)).read("train", np.zeros(0, np.int64))
    assert len(rows) == 0
    assert rows.schema.names == PREPARED_SCHEMA.names


def test_a_position_past_the_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PreparedTableError, match="264 rows"):
        write_table(str(tmp_path)).read("train", np.array([3, 264]))


def test_only_the_row_groups_that_hold_a_position_are_read(tmp_path: Path) -> None:
    table = write_table(str(tmp_path), (640,))
    path = tmp_path / "train" / "part-000000000000.parquet"
    group = pq.ParquetFile(path).metadata.row_group(200 // ROW_GROUP)
    columns = [group.column(number) for number in range(8)]
    offset, size = columns[0].data_page_offset, sum(column.total_compressed_size for column in columns)
    content = bytearray(path.read_bytes())
    content[offset : offset + size // 2] = bytes(size // 2)
    path.write_bytes(content)
    assert table.read("train", np.array([0, 191, 256, 639]))["pair_id"].to_pylist() == ["0", "191", "256", "639"]
    with pytest.raises(PreparedTableError, match="damaged"):
        table.read("train", np.array([200]))


def test_parts_of_other_row_groups_and_encodings_are_read_as_well(tmp_path: Path) -> None:
    """As tables had them that were prepared earlier."""
    table = write_table(str(tmp_path), (200, 64))
    for part in table.parts("train"):
        pq.write_table(rows_from(part.first_position, part.rows), part.path, row_group_size=64)
    positions = np.array([263, 0, 64, 199, 200])
    assert table.read("train", positions).to_pylist() == [rows_from(p, 1).to_pylist()[0] for p in positions.tolist()]


def test_reading_opens_only_the_parts_that_hold_a_position(tmp_path: Path) -> None:
    table = write_table(str(tmp_path), (5, 64, 65, 1, 130))
    kept = table.parts("train")[2]
    for part in table.parts("train"):
        if part != kept:
            Path(part.path).unlink()
    assert table.read("train", np.array([133, 69]))["pair_id"].to_pylist() == ["133", "69"]


def test_the_index_has_margins_and_lengths_by_position(tmp_path: Path) -> None:
    index = write_table(str(tmp_path)).index("train")
    assert len(index) == 264
    assert index.pair_id[7] == "7"
    assert index.margin[7] == 993.0
    assert (index.prompt_length[7], index.chosen_length[7], index.rejected_length[7]) == (2, 3, 2)


def test_parts_are_named_by_position_so_that_their_names_sort_into_the_order(tmp_path: Path) -> None:
    table = write_table(str(tmp_path))
    assert [(part.first_position, part.rows) for part in table.parts("train")] == [(0, 1), (1, 200), (201, 63)]
    paths = [part.path for part in table.parts("train")]
    assert paths == sorted(paths)


def test_a_folder_without_a_manifest_is_no_table(tmp_path: Path) -> None:
    write_part(str(tmp_path), "train", rows_from(0, 3))
    assert not PreparedTable.committed(str(tmp_path))
    with pytest.raises(PreparedTableError, match=r"manifest\.json is missing"):
        PreparedTable.open(str(tmp_path))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    write_table(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"fingerprint": "f"}')
    with pytest.raises(PreparedTableError, match=r"manifest\.json is damaged"):
        PreparedTable.open(str(tmp_path))


def test_a_missing_and_a_truncated_part_are_named(tmp_path: Path) -> None:
    table = write_table(str(tmp_path))
    path = tmp_path / "train" / "part-000000000001.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PreparedTableError, match=r"part-000000000001\.parquet is missing or damaged"):
        table.read("train", np.array([5]))
    path.unlink()
    with pytest.raises(PreparedTableError, match=r"part-000000000001\.parquet is missing or damaged"):
        table.read("train", np.array([5]))


def test_a_part_with_other_rows_than_the_manifest_says_is_an_error(tmp_path: Path) -> None:
    table = write_table(str(tmp_path))
    write_part(str(tmp_path), "train", rows_from(201, 10))
    with pytest.raises(PreparedTableError, match="10 rows, its manifest says 63"):
        table.read("train", np.array([205]))


def test_an_unknown_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PreparedTableError, match="no split 'eval'"):
        write_table(str(tmp_path)).rows("eval")


def test_a_manifest_whose_numbers_do_not_add_up_cannot_be_made() -> None:
    split = {"train": SplitFacts(rows=5, first_positions=(0,))}
    Manifest(fingerprint="f", splits=split, rows_in=8, rows_kept=5, quarantined={"empty_answer": 3})
    with pytest.raises(ValidationError, match="8 rows in are not 5 kept"):
        Manifest(fingerprint="f", splits=split, rows_in=8, rows_kept=5, quarantined={"empty_answer": 2})
    with pytest.raises(ValidationError, match="6 rows were kept but the splits hold 5"):
        Manifest(fingerprint="f", splits=split, rows_in=6, rows_kept=6)


def test_opening_reads_neither_parts_nor_index_and_the_index_is_read_once(tmp_path: Path) -> None:
    table = write_table(str(tmp_path))
    first = table.index("train")
    (tmp_path / "train" / "index.parquet").unlink()
    assert table.index("train") is first
    with pytest.raises(PreparedTableError, match="index"):
        PreparedTable.open(str(tmp_path)).index("train")


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    write_index(str(tmp_path), "eval", index_rows(rows_from(0, 0)))
    commit(str(tmp_path), Manifest(fingerprint="f", splits={"eval": SplitFacts(rows=0)}, rows_in=0, rows_kept=0))
    table = PreparedTable.open(str(tmp_path))
    assert table.parts("eval") == ()
    assert len(table.index("eval")) == 0
    assert len(table.read("eval", np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize("first_positions", [(), (1,), (0, 0), (0, 5), (0, 3, 2)])
def test_parts_that_do_not_cover_their_split_are_refused(first_positions: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="do not cover"):
        SplitFacts(rows=5, first_positions=first_positions)
