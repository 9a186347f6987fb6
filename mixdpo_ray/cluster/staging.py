"""Convert every source and keep the result where it is; only keys, refusals and counts come to the driver.

Sources of a few megabytes are converted by the driver itself: it is done before the first worker has imported what it
needs (about 3 s of CPU time each). The rows are the same either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from mixdpo_ray.cluster.conversion import STAGED_SCHEMA, Stage, converted, converted_here
from mixdpo_ray.cluster.sources import Source
from mixdpo_ray.pairs.arrangement import KEY_SCHEMA
from mixdpo_ray.pairs.convert import Refusal

NARROW = [*KEY_SCHEMA.names, "row_key", "reason", "note", "count"]


@dataclass(frozen=True)
class Sizes:
    """What decides who does the work, never what comes out."""

    driver_bytes: int = 4 << 20  # sources up to this size are converted by the driver
    part_tokens: int = 1 << 23  # of one part; a table of one part is put in order by the driver


SIZES = Sizes()


@dataclass(frozen=True)
class Staged:
    rows: Dataset  # STAGED_SCHEMA, in Ray's object store
    keys: pa.Table  # KEY_SCHEMA and row_key, of the pairs that were kept so far
    refused: tuple[Refusal, ...]
    notes: dict[str, int]

    @property
    def rows_in(self) -> int:
        return len(self.keys) + len(self.refused)


def stage_all(sources: list[Source], stages: list[Stage], sizes: Sizes, done: Callable[[int, int], None]) -> Staged:
    """`done(tasks, of)` is called as tasks finish."""
    pieces = [source.pieces() for source in sources]
    work = list(zip(sources, pieces, stages, strict=True))
    if sum(source.bytes for source in sources) <= sizes.driver_bytes:
        tables = [converted_here(*one) for one in work]
        return _sorted_out(ray.data.from_arrow(tables), pa.concat_tables(tables).select(NARROW))
    parts = [converted(*one) for one in work]
    rows = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    tasks = sum(max(1, len(some)) for some in pieces)
    blocks = []
    for bundle in rows.iter_internal_ref_bundles():
        blocks.extend(bundle.block_refs)
        done(min(len(blocks), tasks), tasks)
    held = ray.data.from_arrow_refs(blocks)
    narrow = held.select_columns(NARROW).iter_batches(batch_size=None, batch_format="pyarrow")
    return _sorted_out(held, pa.concat_tables([_EMPTY, *narrow]))


_EMPTY = pa.schema([STAGED_SCHEMA.field(name) for name in NARROW]).empty_table()


def _sorted_out(held: Dataset, narrow: pa.Table) -> Staged:
    refused = narrow.filter(pc.field("reason").is_valid()).select(["file", "row", "reason"]).to_pylist()
    noted = narrow.filter(pc.field("note").is_valid()).select(["note", "count"]).to_pylist()
    notes: Counter[str] = Counter()
    for entry in noted:
        notes[entry["note"]] += entry["count"]
    keys = narrow.filter(pc.field("row_key").is_valid()).select([*KEY_SCHEMA.names, "row_key"])
    assert len(pc.unique(keys["row_key"])) == len(keys), "two rows have one key"
    return Staged(held, keys, tuple(Refusal(**entry) for entry in refused), dict(sorted(notes.items())))
