"""Rows reach their positions, whatever blocks they come in and however many parts one task writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from mixdpo_ray.preparation.convert_tasks import STAGED_SCHEMA
from mixdpo_ray.preparation.write_sorted import (
    RowPositions,
    combine,
    positions_of,
    with_positions,
    write_parts,
    write_sorted,
)
from mixdpo_ray.tables.prepared_table import Manifest, PreparedTable, commit

PART = 64


def staged_rows(count: int) -> pa.Table:
    """Row r of the source has key r + 1 and is about to become position count - 1 - r."""
    number = np.arange(count)
    ids = pa.array([[each, each + 1] for each in number.tolist()], pa.list_(pa.int32()))
    columns = {
        "pair_id": pa.array([f"pair {each}" for each in number.tolist()]),
        **dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), ids),
        "score_chosen": pa.array(number + 1.0),
        "score_rejected": pa.array(np.ones(count)),
        "row_key": pa.array(number.astype(np.uint64) + 1),
    }
    missing = {field.name: pa.nulls(count, field.type) for field in STAGED_SCHEMA if field.name not in columns}
    return pa.table(columns | missing).select(STAGED_SCHEMA.names).cast(STAGED_SCHEMA)


def reversed_positions(count: int, train_rows: int) -> RowPositions:
    rows = {"train": train_rows, "eval": count - train_rows}
    return positions_of(np.arange(count, 0, -1).astype(np.uint64), np.arange(count, dtype=np.float64)[::-1], rows)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("most_blocks", [1024, 12, 5])
def test_every_row_reaches_its_position_in_parts_of_the_same_size(
    tmp_path: Path, most_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, two or five parts to a block. A last part of two rows, and a held-out split that begins inside another one.

    Blocks are longer than Ray would have them.
    """
    monkeypatch.setattr(ray.data.DataContext.get_current(), "target_max_block_size", 2_000)
    count = 22 * PART + 2
    train_rows = count - 2 * PART - 5
    rows, starts = staged_rows(count), list(range(PART, count, PART))
    shuffled = rows.take(np.random.default_rng(0).permutation(count))
    refused = pa.table(
        {name: pa.nulls(3, field.type) for name, field in zip(rows.schema.names, rows.schema, strict=True)}
    )
    blocks = [refused, *(shuffled.slice(first, 100) for first in range(0, count, 100))]
    where = reversed_positions(count, train_rows)
    facts = list(write_sorted(ray.data.from_arrow(blocks), where, str(tmp_path), starts, most_blocks))
    done = combine(facts, {"train": train_rows, "eval": count - train_rows})
    commit(str(tmp_path), Manifest(fingerprint="f", splits=done.splits, rows_in=count, rows_kept=count))
    table = PreparedTable.open(str(tmp_path))
    assert table.manifest.splits["train"].first_positions == tuple(range(0, train_rows, PART))
    found = [table.read(split, np.arange(table.rows(split))) for split in ("train", "eval")]
    expected = [f"pair {each}" for each in range(count)][::-1]
    assert [each for some in found for each in some["pair_id"].to_pylist()] == expected
    assert found[1]["margin"].to_pylist() == np.arange(count - train_rows, dtype=float)[::-1].tolist()


def test_a_table_has_one_name_however_many_parts_a_task_writes(tmp_path: Path) -> None:
    where = reversed_positions(300, 200)
    rows = with_positions(staged_rows(300), where).sort_by("position")
    starts = [64, 128, 192, 256]
    at_once = write_parts(rows, where, str(tmp_path), starts).to_pylist()
    one_by_one = [
        fact
        for first in (0, *starts)
        for fact in write_parts(rows.slice(first, PART), where, str(tmp_path), starts).to_pylist()
    ]
    assert at_once == one_by_one
    assert [(fact["split"], fact["first"], fact["rows"]) for fact in at_once] == [
        *[("train", 0, 64), ("train", 64, 64), ("train", 128, 64), ("train", 192, 8)],
        *[("eval", 0, 56), ("eval", 56, 44)],
    ]
