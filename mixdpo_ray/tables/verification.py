"""All parts of a table that was prepared before, verified before anything is started.

Each part is verified again by whoever reads it, so this only tells damage sooner: before the first step instead of in
the middle of a run. Measured: 60,000 pairs of 900 tokens, 77 MiB, in 0.05 s, 1.6 GiB/s out of the page cache, where to
prepare them takes minutes and to start workers ten seconds. What is far away or larger is left to its readers.
"""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.tables.parquet import open_parquet
from mixdpo_ray.tables.prepared_table import SPLITS, PreparedTable

MOST_BYTES = 1 << 30  # ten seconds on a slow network disk


def verify_parts(table: PreparedTable) -> None:
    """Refuse a table on a disk of which a part is damaged or missing."""
    if not storage.is_local(table.folder):
        return
    parts = [part for split in SPLITS if split in table.manifest.splits for part in table.parts(split)]
    files = [storage.local(part.path) for part in parts]
    if sum(file.stat().st_size for file in files if file.exists()) > MOST_BYTES:
        return
    for part in parts:
        with open_parquet(part.path, part.seal, table.remedy) as file:
            file.verify()
