"""Numbers of pairs on disk, keyed by pair_id: another order or selection of the pairs only adds what is missing.

<folder>/part-<number>-<digest>.parquet   pair_id, and a column for each kind of number
<folder>/manifest.json                    which parts count, and how many pairs they cover; rewritten after every append
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from mixdpo_ray import storage
from mixdpo_ray.checksums import ChecksummedSettings, what_is_wrong
from mixdpo_ray.errors import NonFiniteError, PreparedTableError
from mixdpo_ray.tables.parquet import open_parquet, write_parquet
from mixdpo_ray.tables.prepared_table import MANIFEST

SCORES = "scores"  # folder of such tables under output.storage_path; those of references have one of their own
RATED_FOLDER = "rated"  # and that of answers' ratings, beside what is written of them
PASSES = "scoring"  # of what Ray writes while a model is run in shards


class KeyedManifest(ChecksummedSettings):
    fingerprint: str = Field(description="What decides the numbers: the model, code and settings that computed them")
    columns: tuple[str, ...] = Field((), description="Names of the numbers; none: those of every table of its kind")
    pairs: int = Field(0, ge=0, description="Coverage: pairs that have all their numbers")
    parts: tuple[str, ...] = ()
    seals: dict[str, str] = Field(default_factory=dict, description="Of parts (sealed.py); not of those of before")
    passes: int = Field(0, ge=0, description="How often the model was loaded to add to it")
    facts: dict[str, Any] = Field(default_factory=dict, description="Model, revision, dtype, lengths, ...")


class KeyedTable:
    """Not for concurrent writers: one driver appends, everybody reads."""

    what: ClassVar[str] = "scores"
    made_by: ClassVar[str] = "jobs/score.py"
    kind: ClassVar[pa.DataType] = pa.float64()
    own_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: str, manifest: KeyedManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._rows: pa.Table | None = None

    @classmethod
    def create(
        cls, folder: str, fingerprint: str, facts: dict[str, Any] | None = None, columns: tuple[str, ...] = ()
    ) -> Self:
        """The table in this folder, an empty one where there was none."""
        if not storage.exists(storage.join(folder, MANIFEST)):
            table = cls(folder, KeyedManifest(fingerprint=fingerprint, facts=facts or {}, columns=columns))
            table._commit()
            return table
        table = cls.open(folder)
        if table.manifest.fingerprint != fingerprint:
            raise PreparedTableError(f"{folder} holds other {cls.what} ({table.manifest.fingerprint}): remove it")
        return table

    @classmethod
    def open(cls, folder: str) -> Self:
        path = storage.join(folder, MANIFEST)
        if not storage.exists(path):
            raise PreparedTableError(f"{folder} holds no {cls.what} ({MANIFEST} is missing): run {cls.made_by}")
        try:
            return cls(folder, KeyedManifest.from_json(storage.read_bytes(path)))
        except ValueError as error:
            raise PreparedTableError(f"{path} is damaged ({what_is_wrong(error)}): {cls._remedy(folder)}") from error

    @property
    def columns(self) -> tuple[str, ...]:
        return self.manifest.columns or self.own_columns

    @property
    def rows(self) -> pa.Table:
        """All of it, read once: 40 bytes or so a pair."""
        if self._rows is None:
            pieces = [self._read_part(name).cast(self._held) for name in self.manifest.parts]
            self._rows = pa.concat_tables([self._held.empty_table(), *pieces]).combine_chunks()
        return self._rows

    def begin_pass(self) -> None:
        """Counted, so that whoever shares this table can show that it was computed once."""
        self.manifest = self.manifest.model_copy(update={"passes": self.manifest.passes + 1})
        self._commit()

    def append(self, rows: pa.Table) -> None:
        """Pairs that are covered already are left as they are, so repeating an append changes nothing."""
        rows = rows.select(self._held.names).cast(self._held)
        rows = rows.filter(pc.invert(pc.is_in(rows["pair_id"], self.rows["pair_id"].combine_chunks())))
        if not len(rows):
            return
        self._refuse_non_finite(rows)
        digest = hashlib.sha256("".join(rows["pair_id"].to_pylist()).encode()).hexdigest()[:8]
        name = f"part-{len(self.manifest.parts):06d}-{digest}.parquet"
        seal = write_parquet(storage.join(self.folder, name), rows.cast(self._written))
        covered, parts = self.manifest.pairs + len(rows), (*self.manifest.parts, name)
        seals = self.manifest.seals | {name: seal}
        self.manifest = self.manifest.model_copy(update={"pairs": covered, "parts": parts, "seals": seals})
        self._commit()
        self._rows = pa.concat_tables([self.rows, rows]).combine_chunks()

    def column(self, name: str, pair_ids: Sequence[str]) -> NDArray[Any]:
        """A column in the order of the ids; NaN where a pair is not covered."""
        found = pc.fill_null(self.rows[name].take(self._rows_of(pair_ids)), np.nan)
        return np.asarray(found.to_numpy())

    def missing(self, pair_ids: Sequence[str]) -> list[str]:
        covered = self._rows_of(pair_ids).is_valid().to_pylist()
        return [pair_id for pair_id, there in zip(pair_ids, covered, strict=True) if not there]

    @property
    def _written(self) -> pa.Schema:
        return pa.schema({"pair_id": pa.string()} | dict.fromkeys(self.columns, self.kind))

    @property
    def _held(self) -> pa.Schema:
        """The schema of rows in memory: one array of pa.string() ends at 2 GiB, which is 67 million ids."""
        return self._written.set(0, pa.field("pair_id", pa.large_string()))

    def _rows_of(self, pair_ids: Sequence[str]) -> pa.Array:
        return pc.index_in(pa.array(pair_ids, pa.large_string()), self.rows["pair_id"].combine_chunks())

    def _read_part(self, name: str) -> pa.Table:
        path, seal = storage.join(self.folder, name), self.manifest.seals.get(name, "")
        with open_parquet(path, seal, self._remedy(self.folder)) as file:
            return file.read()

    @classmethod
    def _remedy(cls, folder: str) -> str:
        return f"remove {folder}, and {cls.made_by} computes it again"

    def _commit(self) -> None:
        storage.write_bytes(storage.join(self.folder, MANIFEST), self.manifest.to_json())

    def _refuse_non_finite(self, rows: pa.Table) -> None:
        for name in self.columns:
            bad = np.flatnonzero(~self._finite(rows[name]))
            if len(bad):
                pair_id = rows["pair_id"][int(bad[0])].as_py()
                others = f" and {len(bad) - 1} others" if len(bad) > 1 else ""
                raise NonFiniteError(f"{name} of pair {pair_id}{others} is not finite; check the model")

    def _finite(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(column.to_numpy()))
