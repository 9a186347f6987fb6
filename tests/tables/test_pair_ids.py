"""Ids come from the index when they are asked for, and not before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.curriculum.plan import make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables.pair_ids import PairIds
from mixdpo_ray.tables.parquet import ParquetColumns
from mixdpo_ray.tables.prepared_table import INDEX_SCHEMA, Manifest, PreparedTable, SplitFacts, commit
from mixdpo_ray.training.windows import rank_positions
from mixdpo_ray.training.world import World

ROWS = 10_000
NAMES = [f"pair {row}" for row in range(ROWS)]


def write_index(folder: Path, row_group_size: int) -> Path:
    lengths = {name: np.full(ROWS, 7) for name in INDEX_SCHEMA.names[3:]}
    columns = {"position": np.arange(ROWS), "pair_id": NAMES, "margin": np.linspace(9, 0, ROWS), **lengths}
    path = folder / "train" / "index.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table(columns, INDEX_SCHEMA), path, row_group_size=row_group_size)
    splits = {"train": SplitFacts(rows=ROWS, first_positions=(0,))}
    commit(str(folder), Manifest(fingerprint="ids", splits=splits, rows_in=ROWS, rows_kept=ROWS))
    return path


@pytest.mark.parametrize("row_group_size", [999, 5000, 10**6])
def test_ids_are_found_by_position_whatever_the_row_groups(tmp_path: Path, row_group_size: int) -> None:
    ids = PairIds(ParquetColumns(str(write_index(tmp_path, row_group_size)), seal="", remedy=""))
    assert len(ids) == ROWS
    asked = [0, 9999, 63, 64, 4095, 4096, 8191, 8192, 4097, 5000, -10_000, 1]
    assert [ids[position] for position in np.array(asked)] == [NAMES[position] for position in asked]
    assert (ids[-1], ids[9990:]) == (NAMES[-1], NAMES[9990:])
    assert list(ids) == ids == NAMES
    assert ids not in (NAMES[::-1], NAMES[1:], None)
    assert pa.array(ids, pa.string()).to_pylist() == pa.array(ids, pa.large_string()).to_pylist() == NAMES


@pytest.mark.parametrize("position", [ROWS, -ROWS - 1])
def test_a_position_that_does_not_exist_has_no_id(tmp_path: Path, position: int) -> None:
    with pytest.raises(IndexError, match="10000 pairs"):
        PairIds(ParquetColumns(str(write_index(tmp_path, 64)), seal="", remedy=""))[position]


def test_a_plan_and_its_shares_read_no_id(tmp_path: Path) -> None:
    """The ids are made unreadable: only who asks for one notices."""
    path = write_index(tmp_path, 1000)
    content = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        ids = metadata.row_group(group).column(INDEX_SCHEMA.get_field_index("pair_id"))
        first = ids.dictionary_page_offset or ids.data_page_offset
        content[first : first + ids.total_compressed_size] = b"\xff" * ids.total_compressed_size
    path.write_bytes(content)
    table = PreparedTable.open(str(tmp_path))
    plan = make_plan(CurriculumSettings(), table.index("train").margin < 1, 24, 1)
    shares = [rank_positions(table, plan, World(rank, 3), "grouped", plan.steps // 2) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == plan.window(plan.steps // 2).positions.tolist()
    with pytest.raises(PreparedTableError, match=r"index\.parquet is missing or damaged"):
        table.index("train").pair_id[500]


def test_of_an_index_a_rank_holds_twenty_bytes_a_pair(tmp_path: Path) -> None:
    write_index(tmp_path, 1000)
    index = PreparedTable.open(str(tmp_path)).index("train")
    arrays = (index.margin, index.prompt_length, index.chosen_length, index.rejected_length)
    assert sum(array.nbytes for array in arrays) == 20 * ROWS
