"""Prepared pairs as texts, for other programs and for the Hub.

published/<name>/dataset/README.md        a data card
published/<name>/dataset/data/*.parquet   one file a split: train, test, and each further held-out set
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import pyarrow.parquet as pq

from mixdpo_ray import storage
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.data_card import data_card
from mixdpo_ray.runs.pair_texts import text_table, texts_of
from mixdpo_ray.runs.push import hub_token, push_once
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.prepared_table import PreparedTable

FOLDER = "dataset"
_ROW_GROUP = 1000


@dataclass(frozen=True)
class PublishReport:
    folder: str
    rows: dict[str, int]
    pushed: str | None

    def describe(self) -> str:
        counts = ", ".join(f"{rows:,} in {split}" for split, rows in self.rows.items())
        lines = [f"{self.folder}: {counts}", f'read by load_dataset("{self.folder}")']
        return "\n".join([*lines, *([f"pushed to {self.pushed}"] if self.pushed else [])])


def publish(recipe: Recipe) -> PublishReport:
    """Write the recipe's prepared pairs with their texts, and push them where output.push_to_hub says."""
    settings = recipe.output.push_to_hub
    if settings is not None:
        hub_token(settings)
    with ready_cluster(recipe, trains=recipe.trains_for(recipe.metrics_used)):
        table = prepared_table(recipe)
    record = RunRecord(storage.join(recipe.output.storage_path, "published", recipe.output.name))
    folder, pushed = storage.join(record.folder, FOLDER), None
    with record.locked():
        rows = write_texts(recipe, table, folder)
        if settings is not None:
            about = {"content": table.manifest.content_digest, "rows": rows}
            message = f"{recipe.output.name}: {sum(rows.values())} pairs"
            pushed = push_once(record, settings, FOLDER, message, about, kind="dataset")
    return PublishReport(folder, rows, pushed)


def write_texts(recipe: Recipe, table: PreparedTable, folder: str) -> dict[str, int]:
    """The rows of each split."""
    splits = _splits(table)
    pairs = texts_of(recipe, {pair_id for index in splits.values() for pair_id in index.pair_id})
    storage.delete(folder)
    files: dict[str, tuple[str, int]] = {}
    for split, index in splits.items():
        files[split] = (f"data/{split}.parquet", len(index))
        buffer = io.BytesIO()
        pq.write_table(text_table(index, pairs), buffer, row_group_size=_ROW_GROUP)
        storage.write_bytes(storage.join(folder, files[split][0]), buffer.getvalue())
    card = data_card(recipe, table.manifest, files)
    storage.write_bytes(storage.join(folder, "README.md"), card.encode())
    return {split: rows for split, (_, rows) in files.items()}


def _splits(table: PreparedTable) -> dict[str, Index]:
    """What the library takes for a split's name is letters, digits and '_'."""
    found = {"train": table.index("train")}
    for name, rows in held_out_sets(table).items():
        if len(rows):
            split = "test" if name == MAIN else re.sub(r"\W", "_", name)
            found[split] = table.index("eval").part(rows)
    return found
