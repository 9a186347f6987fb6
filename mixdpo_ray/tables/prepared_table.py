"""The prepared table on disk: rows in curriculum order, a small index beside them, and a manifest that is written last.

<folder>/<split>/part-<first position>.parquet   any number of rows each, in small row groups: names sort into the order
<folder>/<split>/index.parquet                   what a plan needs (margins, lengths), without a single token
<folder>/manifest.json                           its existence is the commit; a folder without it is no table

Workers may write parts in any order and again after a failure: each file appears whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixdpo_ray import storage
from mixdpo_ray.checksums import ChecksummedSettings, what_is_wrong
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.pairs.histogram import MarginHistogram
from mixdpo_ray.settings import Settings
from mixdpo_ray.tables.index import SCORED, Index
from mixdpo_ray.tables.pair_ids import PairIds
from mixdpo_ray.tables.parquet import ParquetColumns, open_parquet, write_parquet
from mixdpo_ray.tables.runs import RUNS, scored_counts

SPLITS = ("train", "eval")
MANIFEST = "manifest.json"
INDEX = "index.parquet"
CAST_AT_ONCE = 1 << 20  # rows: ids of an index can be more text than one array of pa.string() holds

PREPARED_SCHEMA = pa.schema(
    {
        "position": pa.int64(),
        "pair_id": pa.string(),
        "prompt_ids": pa.list_(pa.int32()),
        "chosen_ids": pa.list_(pa.int32()),
        "rejected_ids": pa.list_(pa.int32()),
        "score_chosen": pa.float64(),
        "score_rejected": pa.float64(),
        "margin": pa.float64(),
    }
)
# columns that only some tables have: what they are ordered by, whose label was flipped, what raters and curating said
RATER_MARGINS = "rater_margins"
BEFORE = {"score_chosen": "rated_chosen", "score_rejected": "rated_rejected", "margin": "rated_margin"}
DOUBTS = ("doubt_chosen", "doubt_rejected")  # of their ratings: above a half they were found wrong
OPTIONAL = {
    "difficulty": pa.float64(),
    "flipped": pa.bool_(),
    RATER_MARGINS: pa.list_(pa.float64()),
    "exchanged": pa.bool_(),  # the source had chosen and rejected the other way round
    **dict.fromkeys(RUNS, pa.list_(pa.int32())),  # which tokens of answers are the assistant's; null: all
    **dict.fromkeys(SCORED, pa.int64()),  # of an index: how many of them
    **dict.fromkeys((*BEFORE.values(), *DOUBTS, "rarity", "flip_probability", "disagreement"), pa.float64()),
}
INDEX_SCHEMA = pa.schema(
    {
        "position": pa.int64(),
        "pair_id": pa.string(),
        "margin": pa.float64(),
        "prompt_length": pa.int64(),
        "chosen_length": pa.int64(),
        "rejected_length": pa.int64(),
    }
)


class SplitFacts(Settings):
    rows: int = Field(ge=0)
    first_positions: tuple[int, ...] = Field((), description="Of its parts, ascending")
    seals: tuple[str, ...] = Field((), description="Of its parts (sealed.py); none before there were checksums")
    index_seal: str = ""

    @model_validator(mode="after")
    def _parts_cover_the_rows(self) -> Self:
        edges = [*self.first_positions, self.rows] if self.rows else []
        if edges[:1] not in ([], [0]) or edges != sorted(set(edges)) or (not self.rows and self.first_positions):
            raise ValueError(f"parts that begin at {self.first_positions} do not cover {self.rows} rows")
        if self.seals and len(self.seals) != len(self.first_positions):
            raise ValueError(f"{len(self.first_positions)} parts have {len(self.seals)} seals")
        return self


class Manifest(ChecksummedSettings):
    """What a prepared table holds and where it came from. Its numbers must add up, or it cannot be made."""

    fingerprint: str = Field(description="The request: sources, settings, tokenizer, code version")
    content_digest: str = Field("", description="The rows themselves, in order")
    splits: dict[str, SplitFacts]
    rows_in: int = Field(ge=0, description="Candidate pairs that the sources gave")
    rows_kept: int = Field(ge=0)
    quarantined: dict[str, int] = Field(default_factory=dict, description="Refused rows by reason")
    notes: dict[str, int] = Field(default_factory=dict, description="What policies changed: truncated, swapped, ...")
    margins: MarginHistogram = Field(MarginHistogram(), description="Of the training split")
    facts: dict[str, Any] = Field(default_factory=dict, description="Format, margin scale, tokenizer, settings, ...")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        refused, held = sum(self.quarantined.values()), sum(split.rows for split in self.splits.values())
        if self.rows_in != self.rows_kept + refused:
            raise ValueError(f"{self.rows_in} rows in are not {self.rows_kept} kept + {refused} quarantined")
        if self.rows_kept != held:
            raise ValueError(f"{self.rows_kept} rows were kept but the splits hold {held}")
        return self


@dataclass(frozen=True)
class Part:
    path: str
    first_position: int
    rows: int
    seal: str = ""


def part_path(folder: str, split: str, first_position: int) -> str:
    return storage.join(folder, split, f"part-{first_position:012d}.parquet")


def write_part(folder: str, split: str, rows: pa.Table) -> Part:
    """Rows of PREPARED_SCHEMA with consecutive positions, at least one."""
    rows = _with_optional(rows, PREPARED_SCHEMA)
    first = rows["position"][0].as_py()
    expected = np.arange(first, first + len(rows))
    assert np.array_equal(rows["position"].to_numpy(), expected), "positions must be consecutive"
    path = part_path(folder, split, first)
    return Part(path, first, len(rows), write_parquet(path, rows))


def _with_optional(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, and behind them those optional ones that the rows have."""
    present = [pa.field(name, kind) for name, kind in OPTIONAL.items() if name in rows.column_names]
    fields = [*schema, *present]
    return rows.select([field.name for field in fields]).cast(pa.schema(fields))


def index_rows(rows: pa.Table) -> pa.Table:
    """The index rows of prepared or converted rows (those without positions get none)."""
    named = [name for name in ("position", "pair_id", "margin", *OPTIONAL) if name not in RUNS]
    columns = {name: rows[name] for name in named if name in rows.column_names}
    for name in ("prompt", "chosen", "rejected"):
        columns[f"{name}_length"] = pc.list_value_length(rows[f"{name}_ids"]).cast(pa.int64())
    return pa.table(columns | scored_counts(rows))


def write_index(folder: str, split: str, index: pa.Table) -> str:
    """Index rows of every part, in the order of positions. The seal of the index."""
    slices = [
        _with_optional(index.slice(first, CAST_AT_ONCE), INDEX_SCHEMA)
        for first in range(0, max(len(index), 1), CAST_AT_ONCE)
    ]
    index = pa.concat_tables(slices)
    expected = np.arange(len(index))
    assert np.array_equal(index["position"].to_numpy(), expected), "an index covers every position in order"
    return write_parquet(storage.join(folder, split, INDEX), index)


def with_index_seals(splits: dict[str, SplitFacts], seals: dict[str, str]) -> dict[str, SplitFacts]:
    return {split: facts.model_copy(update={"index_seal": seals[split]}) for split, facts in splits.items()}


def commit(folder: str, manifest: Manifest) -> None:
    """The last write: from here on the table exists."""
    storage.write_bytes(storage.join(folder, MANIFEST), manifest.to_json())


@dataclass(frozen=True)
class PreparedTable:
    folder: str
    manifest: Manifest
    _indexes: dict[str, Index] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str) -> Self:
        path = storage.join(folder, MANIFEST)
        if not storage.exists(path):
            raise PreparedTableError(f"{folder} holds no committed table ({MANIFEST} is missing): run jobs/prepare.py")
        try:
            manifest = Manifest.from_json(storage.read_bytes(path))
        except ValueError as error:
            raise PreparedTableError(f"{path} is damaged ({what_is_wrong(error)}): {_remedy(folder)}") from error
        return cls(folder, manifest)

    @property
    def remedy(self) -> str:
        """What to do about damage."""
        return _remedy(self.folder)

    @staticmethod
    def committed(folder: str) -> bool:
        return storage.exists(storage.join(folder, MANIFEST))

    def rows(self, split: str) -> int:
        return self._split(split).rows

    def parts(self, split: str) -> tuple[Part, ...]:
        return tuple(self._part(split, number) for number in range(len(self._split(split).first_positions)))

    def index(self, split: str) -> Index:
        """Read once per process, without the ids."""
        if split not in self._indexes:
            path = storage.join(self.folder, split, INDEX)
            file = ParquetColumns(path, self._split(split).index_seal, self.remedy)
            rows = int(file.starts[-1])
            if rows != self.rows(split):
                raise PreparedTableError(f"{path} has {rows} rows, its manifest {self.rows(split)}: {self.remedy}")
            kinds: dict[str, type[np.generic]] = {
                "margin": np.float64,
                **dict.fromkeys(INDEX_SCHEMA.names[3:], np.int32),
                **dict.fromkeys(SCORED, np.int32),
                "difficulty": np.float64,
            }
            kinds = {name: kind for name, kind in kinds.items() if name in file.names}
            columns = dict(zip(kinds, file.arrays(kinds), strict=True))
            scored = (columns.pop(SCORED[0]), columns.pop(SCORED[1])) if SCORED[0] in kinds else None
            metric = columns.pop("difficulty", None)
            self._indexes[split] = Index(PairIds(file), **columns, metric=metric, scored=scored)
        return self._indexes[split]

    def column(self, split: str, name: str) -> pa.ChunkedArray:
        """One narrow column of all rows, read from the parts."""
        pieces = []
        for part in self.parts(split):
            with open_parquet(part.path, part.seal, self.remedy) as file:
                pieces.append(file.read([name])[name])
        kind = OPTIONAL[name] if name in OPTIONAL else PREPARED_SCHEMA.field(name).type
        return pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], kind)

    def has_column(self, split: str, name: str) -> bool:
        """Whether its parts have one of the optional columns."""
        parts = self.parts(split)
        return bool(parts) and name in ParquetColumns(parts[0].path, parts[0].seal, self.remedy).names

    def numbers(self, split: str, name: str) -> NDArray[np.float64]:
        """One narrow column of all rows: of the index, or a score."""
        values = self.column(split, name).to_numpy() if name.startswith("score") else getattr(self.index(split), name)
        return np.asarray(values, np.float64)

    def read(self, split: str, positions: NDArray[np.int64]) -> pa.Table:
        """Rows in the order of `positions`; only the row groups that hold them are read."""
        wanted, order = np.unique(positions, return_inverse=True)
        firsts = np.array(self._split(split).first_positions, np.int64)
        holding = np.unique(np.searchsorted(firsts, wanted, side="right") - 1)
        parts = [self._part(split, number) for number in holding.tolist() if number >= 0]
        pieces = [piece for part in parts if (piece := self._read_part(part, wanted)) is not None]
        found = pa.concat_tables(pieces) if pieces else PREPARED_SCHEMA.empty_table()
        if len(found) != len(wanted):
            raise PreparedTableError(
                f"{self.folder}/{split} has {self.rows(split)} rows: not all positions asked for exist"
            )
        return found.combine_chunks().take(order)

    def _part(self, split: str, number: int) -> Part:
        facts = self._split(split)
        first = facts.first_positions[number]
        end = (*facts.first_positions[number + 1 : number + 2], facts.rows)[0]
        seal = facts.seals[number] if facts.seals else ""
        return Part(part_path(self.folder, split, first), first, end - first, seal)

    def _split(self, split: str) -> SplitFacts:
        if split not in self.manifest.splits:
            raise PreparedTableError(f"{self.folder} has no split {split!r}, only {', '.join(self.manifest.splits)}")
        return self.manifest.splits[split]

    def _read_part(self, part: Part, wanted: NDArray[np.int64]) -> pa.Table | None:
        first, last = np.searchsorted(wanted, [part.first_position, part.first_position + part.rows])
        if first == last:
            return None
        inside = wanted[first:last] - part.first_position
        with open_parquet(part.path, part.seal, self.remedy) as file:
            sizes = file.group_rows
            if sum(sizes) != part.rows:
                raise PreparedTableError(
                    f"{part.path} has {sum(sizes)} rows, its manifest says {part.rows}: {self.remedy}"
                )
            starts = np.concatenate([[0], np.cumsum(sizes)])
            group_of = np.searchsorted(starts, inside, side="right") - 1
            groups, nth = np.unique(group_of, return_inverse=True)
            rows = file.read(groups=groups.tolist())
        read_starts = np.concatenate([[0], np.cumsum(np.array(sizes)[groups])])
        return rows.take(read_starts[nth] + inside - starts[group_of])


def _remedy(folder: str) -> str:
    return f"remove {folder}, and jobs/prepare.py makes it anew"
