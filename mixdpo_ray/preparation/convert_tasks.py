"""Raw rows to token rows on the cluster: one task per piece of a file, one row out for every pair kept or refused.

The staged rows stay in Ray's object store (which spills to disk) until their order is known.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.convert import CONVERTED_SCHEMA, Conversion, Converter
from mixdpo_ray.pairs.margin_scale import resolve_scale
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.pairs.settings import SFT_SOURCE, DataSettings, mixed_name
from mixdpo_ray.pairs.sft_rows import SftConverter, format_of_source, kind_of_format
from mixdpo_ray.preparation.file_slices import FileSlice
from mixdpo_ray.preparation.sources import Source, block_rows
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.index import SCORED
from mixdpo_ray.tables.runs import scored_counts
from mixdpo_ray.training.model_files import with_absolute_paths
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer

LENGTHS = ("prompt", "chosen", "rejected")
STAGED_SCHEMA = pa.schema(
    [
        *CONVERTED_SCHEMA,
        *(pa.field(f"{name}_length", pa.int64()) for name in LENGTHS),
        *(pa.field(name, pa.int64()) for name in SCORED),
        pa.field("source_number", pa.int8()),
        pa.field("row_key", pa.uint64()),  # names the row among all rows of all sources
        pa.field("reason", pa.string()),  # of a refused row, which has no tokens
        pa.field("note", pa.string()),  # neither kept nor refused: how many pairs of the piece a policy changed
        pa.field("count", pa.int64()),
    ]
)
GROUP_SCHEMA = pa.schema({"group": pa.int64(), "rows": pa.binary()})
GROUP_BITS = 62


@dataclass(frozen=True)
class ConversionSettings:
    """What a task needs to convert rows of one source; small, because every task gets a copy."""

    model: ModelSettings
    data: DataSettings  # with this source in origin of data.source
    format: str
    source_number: int  # of DataSettings.by_source
    tokenizer: Any  # an ObjectRef of it, or None where it has to be loaded by name
    mixed: str | None = None  # the name of the source in a mix
    sft: bool = False  # rows with one answer, and no pairs

    def converter(self) -> Converter:
        """Once per process: tokenizers take up to seconds to load."""
        tokenizer = self.tokenizer.hex() if self.tokenizer is not None else self.model.model_dump_json()
        name = f"{tokenizer} {self.data.model_dump_json()} {self.format} {self.mixed} {self.sft}"
        if name not in _CONVERTERS:
            loaded = self._load()
            _CONVERTERS[name] = (
                SftConverter(self.data, self.format, loaded)
                if self.sft
                else Converter(self.data, self.format, loaded, self.mixed)
            )
        return _CONVERTERS[name]

    def _load(self) -> Any:
        if self.tokenizer is not None:
            return ray.get(self.tokenizer)
        return load_tokenizer(self.model)  # brings torch: 4 s of CPU time instead of 1 s


_CONVERTERS: dict[str, Converter] = {}


def shared_tokenizer(tokenizer: Any, model: ModelSettings) -> Any:
    """Classes that a model's repository brings along exist in the process that loaded them, and cannot be sent."""
    return None if model.trust_remote_code else ray.put(tokenizer)


def conversions_of(recipe: Recipe, sources: list[Source], tokenizer: Any) -> list[ConversionSettings]:
    """How each source is converted, in the order of DataSettings.by_source."""
    model = with_absolute_paths(recipe.model)
    shared = shared_tokenizer(tokenizer, model)
    conversions = []
    for number, ((setting, data), source) in enumerate(zip(recipe.data.by_source.items(), sources, strict=True)):
        with blamed_on(setting):
            format_name = format_of_source(setting, data, source.columns(data.max_row_bytes))
        conversions.append(
            ConversionSettings(
                model,
                resolve_scale(data, kind_of_format(format_name)),
                format_name,
                number,
                shared,
                mixed_name(setting),
                setting == SFT_SOURCE,
            )
        )
    return conversions


def converted(source: Source, file_slices: list[FileSlice], settings: ConversionSettings) -> Dataset:
    """Rows of STAGED_SCHEMA, not yet computed."""
    if source.mapped is not None:
        name = source.name
        raw = ray.data.from_arrow_refs([ray.put(block) for block in source.blocks()])
        tasks = raw.num_blocks()

        def read(block: pa.Table) -> list[RawRow]:
            return list(block_rows(name, block))
    else:
        raw = ray.data.range(len(file_slices), override_num_blocks=len(file_slices))
        tasks = len(file_slices)
        max_row_bytes = settings.data.max_row_bytes

        def read(block: pa.Table) -> list[RawRow]:
            return [raw for number in block["id"].to_pylist() for raw in file_slices[number].read(max_row_bytes)]

    if kind_of_format(settings.format).group_by is None:
        return _map(raw, lambda block: convert(settings, read(block)))
    return _converted_groups(_map(raw, lambda block: _grouped(settings, read(block))), tasks, settings)


def convert_locally(source: Source, file_slices: list[FileSlice], settings: ConversionSettings) -> pa.Table:
    """The same rows, by this process."""
    rows = [raw for file_slice in file_slices for raw in file_slice.read(settings.data.max_row_bytes)]
    if source.mapped is not None:
        rows = [raw for block in source.blocks() for raw in block_rows(source.name, block)]
    return convert(settings, rows)


def _map(dataset: Dataset, function: Callable[[pa.Table], pa.Table]) -> Dataset:
    return dataset.map_batches(function, batch_size=None, batch_format="pyarrow")


def convert(settings: ConversionSettings, rows: list[RawRow]) -> pa.Table:
    return to_staged_rows(settings.converter().convert(rows), settings.source_number)


def to_staged_rows(conversion: Conversion, source_number: int) -> pa.Table:
    kept = conversion.kept
    columns = {name: kept[name] for name in kept.column_names} | scored_counts(kept)
    for name in LENGTHS:
        columns[f"{name}_length"] = pc.list_value_length(kept[f"{name}_ids"]).cast(pa.int64())
    columns["row_key"] = pa.array(row_keys(kept, source_number), pa.uint64())
    refused = [{"file": refusal.file, "row": refusal.row, "reason": refusal.reason} for refusal in conversion.refused]
    notes = [{"note": note, "count": count} for note, count in conversion.notes.items()]
    parts = [
        _filled(pa.table(columns)),
        _filled(pa.Table.from_pylist(refused, pa.schema([STAGED_SCHEMA.field(n) for n in ("file", "row", "reason")]))),
        _filled(pa.Table.from_pylist(notes, pa.schema([STAGED_SCHEMA.field(n) for n in ("note", "count")]))),
    ]
    rows = pa.concat_tables(parts)
    numbers = pa.array(np.full(len(rows), source_number, np.int8))
    return rows.set_column(rows.column_names.index("source_number"), "source_number", numbers)


def row_keys(rows: pa.Table, source_number: int) -> list[int]:
    origins = zip(rows["file"].to_pylist(), rows["row"].to_pylist(), rows["candidate"].to_pylist(), strict=True)
    return [
        int.from_bytes(hashlib.blake2b(repr((source_number, *origin)).encode(), digest_size=8).digest(), "little")
        for origin in origins
    ]


def _filled(rows: pa.Table) -> pa.Table:
    """All columns of the staged schema, null where a row has none."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in STAGED_SCHEMA
    ]
    return pa.table(columns, schema=STAGED_SCHEMA)


def _grouped(settings: ConversionSettings, rows: list[RawRow]) -> pa.Table:
    """Whole raw rows with a number that equal groups share. Pickled: they are whatever the source held."""
    converter = settings.converter()
    groups = [int(converter.group_key(raw)[:16], 16) >> (64 - GROUP_BITS) for raw in rows]
    return pa.table({"group": groups, "rows": [pickle.dumps(raw) for raw in rows]}, schema=GROUP_SCHEMA)


def _converted_groups(grouped: Dataset, tasks: int, settings: ConversionSettings) -> Dataset:
    """Rows of one group meet in one block by a sort with even boundaries over the hash.

    Dataset.groupby does it too, but its shuffle actors took 1.6 to 3 s where this sort takes 0.1 s.
    """
    boundaries = [(1 << GROUP_BITS) * number // tasks for number in range(1, tasks + 1)]

    def convert_groups(block: pa.Table) -> pa.Table:
        return convert(settings, [pickle.loads(row) for row in block["rows"].to_pylist()])

    return _map(grouped.sort("group", boundaries=boundaries), convert_groups)
