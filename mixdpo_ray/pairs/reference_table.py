"""Reference log-probs on disk, keyed by pair_id, so that another order or threshold only adds what is missing.

<folder>/part-<number>-<digest>.parquet   pair_id, ref_chosen_logp, ref_rejected_logp
<folder>/manifest.json                    which parts count, and how many pairs they cover; rewritten after every append
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from mixdpo_ray import storage
from mixdpo_ray.errors import NonFiniteError, PreparedTableError
from mixdpo_ray.pairs.parquet import open_parquet, write_parquet
from mixdpo_ray.pairs.table import MANIFEST
from mixdpo_ray.settings import Settings

REFERENCE_SCHEMA = pa.schema(
    {"pair_id": pa.string(), "ref_chosen_logp": pa.float32(), "ref_rejected_logp": pa.float32()}
)
# in memory: one array of pa.string() ends at 2 GiB, which is 67 million ids
HELD_SCHEMA = REFERENCE_SCHEMA.set(0, pa.field("pair_id", pa.large_string()))


class ReferenceManifest(Settings):
    fingerprint: str = Field(description="The content that was scored and the model, code and dtype that scored it")
    pairs: int = Field(0, ge=0, description="Coverage: pairs that have both log-probs")
    parts: tuple[str, ...] = ()
    passes: int = Field(0, ge=0, description="How often the reference model was loaded to add to it")
    facts: dict[str, Any] = Field(default_factory=dict, description="Model, revision, dtype, lengths, ...")


class ReferenceTable:
    """Not for concurrent writers: one driver appends, everybody reads."""

    def __init__(self, folder: str, manifest: ReferenceManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._rows: pa.Table | None = None

    @classmethod
    def create(cls, folder: str, fingerprint: str, facts: dict[str, Any] | None = None) -> Self:
        """The table in this folder, an empty one where there was none."""
        if not storage.exists(storage.join(folder, MANIFEST)):
            table = cls(folder, ReferenceManifest(fingerprint=fingerprint, facts=facts or {}))
            table._commit()
            return table
        table = cls.open(folder)
        if table.manifest.fingerprint != fingerprint:
            raise PreparedTableError(f"{folder} holds other references ({table.manifest.fingerprint}): remove it")
        return table

    @classmethod
    def open(cls, folder: str) -> Self:
        path = storage.join(folder, MANIFEST)
        if not storage.exists(path):
            raise PreparedTableError(
                f"{folder} holds no reference log-probs ({MANIFEST} is missing): run jobs/prepare.py"
            )
        try:
            return cls(folder, ReferenceManifest.model_validate_json(storage.read_bytes(path)))
        except ValidationError as error:
            raise PreparedTableError(f"{path} is damaged: {error.errors()[0]['msg']}; remove its folder") from error

    @property
    def rows(self) -> pa.Table:
        """All of it, read once: 40 bytes or so a pair."""
        if self._rows is None:
            pieces = [self._read_part(name) for name in self.manifest.parts]
            self._rows = pa.concat_tables([HELD_SCHEMA.empty_table(), *(piece.cast(HELD_SCHEMA) for piece in pieces)])
            self._rows = self._rows.combine_chunks()
        return self._rows

    def begin_pass(self) -> None:
        """Counted, so that whoever shares this table can show that it was computed once."""
        self.manifest = self.manifest.model_copy(update={"passes": self.manifest.passes + 1})
        self._commit()

    def append(self, rows: pa.Table) -> None:
        """Pairs that are covered already are left as they are, so repeating an append changes nothing."""
        rows = rows.select(HELD_SCHEMA.names).cast(HELD_SCHEMA)
        rows = rows.filter(pc.invert(pc.is_in(rows["pair_id"], self.rows["pair_id"].combine_chunks())))
        if not len(rows):
            return
        _refuse_non_finite(rows)
        digest = hashlib.sha256("".join(rows["pair_id"].to_pylist()).encode()).hexdigest()[:8]
        name = f"part-{len(self.manifest.parts):06d}-{digest}.parquet"
        write_parquet(storage.join(self.folder, name), rows.cast(REFERENCE_SCHEMA))
        covered, parts = self.manifest.pairs + len(rows), (*self.manifest.parts, name)
        self.manifest = self.manifest.model_copy(update={"pairs": covered, "parts": parts})
        self._commit()
        self._rows = pa.concat_tables([self.rows, rows]).combine_chunks()

    def aligned(self, pair_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log-probs of the chosen and the rejected answers; NaN where a pair is not covered."""
        places = self._places(pair_ids)
        chosen, rejected = (self.rows[name].take(places) for name in REFERENCE_SCHEMA.names[1:])
        return (
            pc.fill_null(chosen, np.nan).to_numpy().astype(np.float32),
            pc.fill_null(rejected, np.nan).to_numpy().astype(np.float32),
        )

    def missing(self, pair_ids: Sequence[str]) -> list[str]:
        covered = self._places(pair_ids).is_valid().to_pylist()
        return [pair_id for pair_id, there in zip(pair_ids, covered, strict=True) if not there]

    def _places(self, pair_ids: Sequence[str]) -> pa.Array:
        return pc.index_in(pa.array(pair_ids, pa.large_string()), self.rows["pair_id"].combine_chunks())

    def _read_part(self, name: str) -> pa.Table:
        with open_parquet(storage.join(self.folder, name)) as file:
            return file.read()

    def _commit(self) -> None:
        storage.write_bytes(storage.join(self.folder, MANIFEST), self.manifest.model_dump_json(indent=2).encode())


def _refuse_non_finite(rows: pa.Table) -> None:
    for name in REFERENCE_SCHEMA.names[1:]:
        bad = np.flatnonzero(~np.isfinite(rows[name].to_numpy()))
        if len(bad):
            pair_id = rows["pair_id"][int(bad[0])].as_py()
            raise NonFiniteError(f"{name} of pair {pair_id} and {len(bad) - 1} others is not finite; check the model")
