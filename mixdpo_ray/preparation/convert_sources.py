"""Convert every source and keep the result where it is; only keys, refusals and counts come to the driver.

Sources of a few megabytes are converted by the driver itself: it is done before the first worker has imported what it
needs (about 3 s of CPU time each). The rows are the same either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.split_and_order import KEY_SCHEMA
from mixdpo_ray.preparation.convert_tasks import ConversionSettings, convert_locally, converted
from mixdpo_ray.preparation.sources import Source
from mixdpo_ray.tables.index import SCORED

REFUSAL_COLUMNS = ["file", "row", "reason", "source_number"]
NARROW = [*KEY_SCHEMA.names, *SCORED, "row_key", "reason", "note", "count"]


@dataclass(frozen=True)
class Sizes:
    """What decides who does the work, never what comes out."""

    driver_bytes: int = 4 << 20  # sources up to this size are converted by the driver
    part_tokens: int = 1 << 23  # of one part; a table of one part is put in order by the driver


SIZES = Sizes()


@dataclass(frozen=True)
class ConvertedRows:
    rows: Dataset  # STAGED_SCHEMA, in Ray's object store
    keys: pa.Table  # KEPT_SCHEMA, of the pairs that were kept so far
    refused: tuple[Refusal, ...]
    notes: dict[str, int]
    rows_by_source: dict[str, int]  # kept and refused ones, by the setting that names the source

    @property
    def rows_in(self) -> int:
        return sum(self.rows_by_source.values())


def convert_sources(
    sources: Mapping[str, Source],
    settings: list[ConversionSettings],
    sizes: Sizes,
    done: Callable[[int, int], None],
) -> ConvertedRows:
    """`sources`: by the settings that name them. `done(tasks, of)` is called as tasks finish."""
    file_slices = [source.file_slices() for source in sources.values()]
    work = list(zip(sources.values(), file_slices, settings, strict=True))
    if sum(source.bytes for source in sources.values()) <= sizes.driver_bytes:
        tables = [convert_locally(*one) for one in work]
        return _split_kept_and_refused(
            [*sources], ray.data.from_arrow(tables), (rows.select(NARROW) for rows in tables)
        )
    parts = [converted(*one) for one in work]
    rows = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
    tasks = sum(max(1, len(some)) for some in file_slices)
    blocks = []
    for bundle in rows.iter_internal_ref_bundles():
        blocks.extend(bundle.block_refs)
        done(min(len(blocks), tasks), tasks)
    held = ray.data.from_arrow_refs(blocks)
    narrow = held.select_columns(NARROW).iter_batches(batch_size=None, batch_format="pyarrow")
    return _split_kept_and_refused([*sources], held, narrow)


def _large(kind: Any) -> Any:
    """Strings of up to 2 GiB in a column end at 67 million pair ids: taking rows of more is an error in pyarrow."""
    return pa.large_string() if kind == pa.string() else kind


KEPT_SCHEMA = pa.schema(
    [
        *((field.name, _large(field.type)) for field in KEY_SCHEMA),
        *((name, pa.int32()) for name in SCORED),
        ("row_key", pa.uint64()),
    ]
)


def _split_kept_and_refused(names: list[str], held: Dataset, narrow: Iterable[pa.Table]) -> ConvertedRows:
    """Block by block, so that the driver holds what it keeps and not also what it came in."""
    refused: list[Refusal] = []
    notes: Counter[str] = Counter()
    keys = [KEPT_SCHEMA.empty_table()]
    for rows in narrow:
        for entry in rows.filter(pc.field("reason").is_valid()).select(REFUSAL_COLUMNS).to_pylist():
            setting = names[entry.pop("source_number")]
            refused.append(Refusal(**entry, setting=setting))
        for entry in rows.filter(pc.field("note").is_valid()).select(["note", "count"]).to_pylist():
            notes[entry["note"]] += entry["count"]
        keys.append(rows.filter(pc.field("row_key").is_valid()).select(KEPT_SCHEMA.names).cast(KEPT_SCHEMA))
    kept = pa.concat_tables(keys)
    row_key = np.sort(kept["row_key"].to_numpy())
    assert not (row_key[1:] == row_key[:-1]).any(), "two rows have one key"
    numbers = np.bincount(kept["source_number"].to_numpy(), minlength=len(names)).tolist()
    refusals = Counter(refusal.setting for refusal in refused)
    rows_by_source = {name: rows + refusals[name] for name, rows in zip(names, numbers, strict=True)}
    return ConvertedRows(held, kept, tuple(refused), dict(sorted(notes.items())), rows_by_source)
