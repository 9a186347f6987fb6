"""Prepared tables of synthetic rows, written without Ray: whole ones to read from, and ones that have an index only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo_ray.preparation.convert_sources import SIZES
from mixdpo_ray.preparation.write_sorted import boundaries
from mixdpo_ray.tables.parquet import NARROW_ROW_GROUP
from mixdpo_ray.tables.prepared_table import (
    INDEX_SCHEMA,
    PREPARED_SCHEMA,
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from tests.measure.scale.rows import LENGTHS, Draw, hex_ids, scored

TOKENS_PER_PAIR = 750
AT_ONCE = 1_000_000


def write_table(folder: Path, pairs: int, fraction: float = 1.0) -> PreparedTable:
    """Parts as long as prepare writes them, margins falling from 9 to 0."""
    starts = [0, *boundaries(pairs, int(pairs * TOKENS_PER_PAIR * fraction), SIZES.part_tokens)]
    falling = np.linspace(9, 0, pairs)
    index = []
    for first, end in zip(starts, [*starts[1:], pairs], strict=True):
        draw = Draw(first, end - first, fraction)
        columns = scored(draw, draw.generator())
        columns |= {"position": np.arange(first, end), "margin": falling[first:end]}
        rows = pa.table({name: columns[name] for name in PREPARED_SCHEMA.names}, PREPARED_SCHEMA)
        write_part(str(folder), "train", rows)
        index.append(index_rows(rows))
    write_index(str(folder), "train", pa.concat_tables(index))
    return _committed(folder, pairs, tuple(starts))


def write_index_only(folder: Path, pairs: int) -> PreparedTable:
    """As write_index would, but never all of it in memory."""
    (folder / "train").mkdir(parents=True)
    with pq.ParquetWriter(folder / "train" / "index.parquet", INDEX_SCHEMA) as writer:
        for first in range(0, pairs, AT_ONCE):
            draw = Draw(first, min(AT_ONCE, pairs - first))
            generator = draw.generator()
            lengths = draw.lengths(generator)
            position = np.arange(first, first + draw.count)
            columns = {
                "position": position,
                "pair_id": hex_ids(generator, draw.count),
                "margin": np.round(18 * (1 - position / pairs)) / 2,
                **{f"{name}_length": lengths[name] for name in LENGTHS},
            }
            writer.write_table(pa.table(columns, INDEX_SCHEMA), row_group_size=NARROW_ROW_GROUP)
    starts = (0, *boundaries(pairs, pairs * TOKENS_PER_PAIR, SIZES.part_tokens))
    return _committed(folder, pairs, starts)


def _committed(folder: Path, pairs: int, starts: tuple[int, ...]) -> PreparedTable:
    splits = {"train": SplitFacts(rows=pairs, first_positions=starts)}
    commit(str(folder), Manifest(fingerprint="scale", splits=splits, rows_in=pairs, rows_kept=pairs))
    return PreparedTable.open(str(folder))
