"""The payload into curriculum order: a position for every row from narrow keys, then Dataset.sort by that position.

Ordering the keys takes milliseconds in one process. The rows with their tokens follow by Ray Data's sort, which is an
external merge sort: blocks go through the object store of all nodes and spill to disk, so no machine has to hold the
table. As positions are known and dense, the boundaries between sorted blocks are known too: Ray need not sample them,
and every block is one part of the table, or some of them. An exchange of our own with plain Ray tasks took 12 s for
1.1 GB where this sort takes 24 s; a table is prepared once, so Ray's is good enough. A table of a single part is
ordered by the driver: starting workers for it took ten times as long as the work.

The sort cuts every GiB that goes in into a piece for every block that comes out, and pieces below 100 kB lie in the
driver's memory. With a block for every part that would be the whole table, from 50 million pairs on: a block is as many
parts as keep the number of blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray
from ray.data import Dataset

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.tables.prepared_table import OPTIONAL, PREPARED_SCHEMA, SplitFacts, part_path, write_part
from mixdpo_ray.tables.runs import RUNS

PART_MULTIPLE = 64  # rows; parts are named in the digest of a table, so another number would give it another name
MOST_BLOCKS = 1024  # sorted blocks: the pieces of a GiB have a MiB
FACTS_SCHEMA = pa.schema(
    {"split": pa.string(), "first": pa.int64(), "rows": pa.int64(), "digest": pa.string(), "seal": pa.string()}
)


@dataclass(frozen=True)
class RowPositions:
    """Positions run through the training split and on through the others."""

    row_key: NDArray[np.uint64]  # ascending
    position: NDArray[np.int64]
    margin: NDArray[np.float64]
    split_rows: Mapping[str, int]  # in the order of positions
    difficulty: NDArray[np.float64] | None = None  # where the table is ordered by another metric than the margin
    without: tuple[str, ...] = ()  # optional columns that are not written


@dataclass(frozen=True)
class Written:
    splits: dict[str, SplitFacts]
    digest: str


def positions_of(
    row_key: NDArray[np.uint64],
    margin: NDArray[np.float64],
    split_rows: Mapping[str, int],
    difficulty: NDArray[np.float64] | None = None,
) -> RowPositions:
    """The positions of keys that are given in the order of their positions."""
    by_key = np.argsort(row_key)
    return RowPositions(
        row_key[by_key], by_key, margin[by_key], split_rows, None if difficulty is None else difficulty[by_key]
    )


def boundaries(rows: int, tokens: int, part_tokens: int) -> list[int]:
    """The positions at which parts begin, but for the first; they depend on the table alone, not on who writes it."""
    groups = max(1, part_tokens * rows // max(1, tokens) // PART_MULTIPLE)
    return list(range(0, rows, groups * PART_MULTIPLE))[1:]


def write_all(
    staged: Dataset,
    positions: RowPositions,
    folder: str,
    tokens: int,
    part_tokens: int,
    done: Callable[[int, int], None],
) -> Written:
    """Every part of all splits; `done(parts, of)` is called as they appear."""
    starts = boundaries(len(positions.position), tokens, part_tokens)
    parts = []
    for part in write_sorted(staged, positions, folder, starts):
        parts.append(part)
        done(len(parts), len(starts) + 1)
    written = combine(parts, positions.split_rows)
    _check_visible(folder, written.splits)
    return written


def _check_visible(folder: str, splits: dict[str, SplitFacts]) -> None:
    """A local folder on several machines would leave each with its own parts."""
    for split, facts in splits.items():
        absent = {part_path("", split, first).rpartition("/")[2] for first in facts.first_positions}
        if absent - set(storage.names(storage.join(folder, split))):
            raise StorageError(
                f"output.storage_path {folder}: other machines wrote parts there that this one does not see; "
                "choose a folder that all machines share, or a URI"
            )


def write_sorted(
    staged: Dataset, positions: RowPositions, folder: str, starts: list[int], most_blocks: int = MOST_BLOCKS
) -> Iterator[dict[str, Any]]:
    """Facts of each part as soon as it is written."""
    if not starts:  # one part: no more than a task would hold
        blocks = staged.iter_batches(batch_size=None, batch_format="pyarrow")
        rows = pa.concat_tables([with_positions(block, positions) for block in blocks])
        yield from write_parts(rows.sort_by("position"), positions, folder, starts).to_pylist()
        return
    shared = ray.put(positions)
    together = -(-(len(starts) + 1) // most_blocks)

    def locate(block: pa.Table) -> pa.Table:
        return with_positions(block, ray.get(shared))

    def write(block: pa.Table) -> pa.Table:
        return write_parts(block, ray.get(shared), folder, starts)

    staged.context.target_max_block_size = None  # or Ray would cut sorted blocks of more than 128 MiB once again
    moved = staged.map_batches(locate, batch_size=None, batch_format="pyarrow")
    ordered = moved.sort("position", boundaries=starts[together - 1 :: together])
    yield from ordered.map_batches(write, batch_size=None, batch_format="pyarrow").iter_rows()


def with_positions(block: pa.Table, positions: RowPositions) -> pa.Table:
    """The rows that have a position, with it; the others are dropped: refused rows, and what only counts."""
    keys = block["row_key"].fill_null(0).to_numpy()
    at = np.searchsorted(positions.row_key, keys).clip(max=len(positions.row_key) - 1)
    found = (positions.row_key[at] == keys) & block["row_key"].is_valid().to_numpy()
    at = at[found]
    rows = block.filter(pa.array(found)).drop_columns(["margin"])
    rows = rows.append_column("position", pa.array(positions.position[at]))
    rows = rows.append_column("margin", pa.array(positions.margin[at]))
    if positions.difficulty is not None:
        rows = rows.append_column("difficulty", pa.array(positions.difficulty[at]))
    optional = [name for name in OPTIONAL if name in rows.column_names and name not in positions.without]
    return rows.select([*PREPARED_SCHEMA.names, *optional])


def write_parts(block: pa.Table, positions: RowPositions, folder: str, starts: list[int]) -> pa.Table:
    """A block of consecutive positions as parts that begin at `starts`, and where one split ends."""
    first = block["position"][0].as_py() if len(block) else 0
    end = first + len(block)
    splits = dict(zip(positions.split_rows, np.cumsum([0, *positions.split_rows.values()]).tolist(), strict=False))
    edges = sorted({first, end, *(edge for edge in (*starts, *splits.values()) if first < edge < end)})
    facts = []
    for begin, behind in pairwise(edges):
        split, offset = max(
            ((name, start) for name, start in splits.items() if start <= begin and positions.split_rows[name]),
            key=lambda one: one[1],
        )
        rows = block.slice(begin - first, behind - begin)
        position = pa.array(rows["position"].to_numpy() - offset)
        part = write_part(folder, split, rows.set_column(0, "position", position))
        numbers = {"first": part.first_position, "rows": part.rows}
        facts.append({"split": split, **numbers, "digest": content_digest(rows), "seal": part.seal})
    return pa.Table.from_pylist(facts, FACTS_SCHEMA)


def content_digest(rows: pa.Table) -> str:
    sha = hashlib.sha256("".join(rows["pair_id"].to_pylist()).encode())
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        sha.update(pc.list_value_length(rows[name]).to_numpy().tobytes())
        sha.update(pc.list_flatten(rows[name]).to_numpy().tobytes())
    for name in (name for name in RUNS if name in rows.column_names):
        sha.update(repr(rows[name].to_pylist()).encode())
    narrow = ("margin", "score_chosen", "score_rejected", "difficulty")
    for name in (name for name in narrow if name in rows.column_names):
        sha.update(rows[name].to_numpy().tobytes())
    return sha.hexdigest()


def combine(facts: list[dict[str, Any]], rows: Mapping[str, int]) -> Written:
    """The parts of all splits, which must cover every position once."""
    splits: dict[str, SplitFacts] = {}
    sha = hashlib.sha256()
    for split in rows:
        parts = sorted((fact for fact in facts if fact["split"] == split), key=lambda fact: fact["first"])
        ends = np.cumsum([part["rows"] for part in parts])
        starts = [part["first"] for part in parts]
        assert starts == [0, *ends.tolist()][: len(parts)], f"parts of {split} do not follow each other"
        assert sum(part["rows"] for part in parts) == rows[split], f"parts of {split} lack rows"
        seals = tuple(part["seal"] for part in parts)
        splits[split] = SplitFacts(rows=rows[split], first_positions=tuple(starts), seals=seals)
        sha.update(f"{split} {' '.join(part['digest'] for part in parts)}\n".encode())
    return Written(splits, sha.hexdigest())
