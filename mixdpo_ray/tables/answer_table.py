"""Answers on disk, keyed by prompt_id and draw.

<folder>/manifest.json                 whose answers: what decides them besides the prompt and the number of the draw
<folder>/part-<keys>-<seal>.parquet    rows of ANSWERS; the digest of their keys, and the seal by which they are read

A part is whole or not there, and its name says all that its reader needs: appending writes one file and nothing else,
so a batch that was answered stays, whatever happens next. Thousands of such parts are made few by `settle`, sorted by
key, so that equal answers lie in files of equal bytes, whoever wrote them and in whatever order they came.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Self

import pyarrow as pa
from pydantic import Field

from mixdpo_ray import storage
from mixdpo_ray.checksums import ChecksummedSettings, what_is_wrong
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables.parquet import encoded, open_parquet
from mixdpo_ray.tables.prepared_table import MANIFEST
from mixdpo_ray.tables.sealed import sealed

MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
ANSWERS = pa.schema(
    {
        "prompt_id": pa.string(),
        "draw": pa.int32(),
        "prompt": MESSAGES,
        "answer": pa.string(),
        "tokens": pa.int32(),
        "token_ids": pa.list_(pa.int32()),  # null where a server does not say
        "finish": pa.string(),  # stop: by itself; length: cut
        "model": pa.string(),
        "settings": pa.string(),  # the fingerprint of the table
    }
)
SAMPLES_FOLDER = "samples"  # beneath output.storage_path
ROWS_TOGETHER = 4096  # of a settled part, and of what is read at once
Key = tuple[str, int]
_PART = re.compile(r"part-[0-9a-f]{16}-(\d+-[0-9a-f]+)\.parquet")


class AnswersManifest(ChecksummedSettings):
    fingerprint: str
    facts: dict[str, Any] = Field(default_factory=dict, description="Model, decoding, engine, ...")


@dataclass
class AnswerTable:
    """Not for concurrent writers: one driver appends, everybody reads."""

    folder: str
    manifest: AnswersManifest
    _keys: dict[Key, tuple[str, int]] = field(default_factory=dict, repr=False)  # key -> its part, and its row there

    @classmethod
    def create(cls, folder: str, fingerprint: str, facts: dict[str, Any]) -> Self:
        """The table in this folder, an empty one where there was none."""
        path = storage.join(folder, MANIFEST)
        if not storage.exists(path):
            manifest = AnswersManifest(fingerprint=fingerprint, facts=facts)
            storage.write_bytes(path, manifest.to_json())
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str) -> Self:
        path = storage.join(folder, MANIFEST)
        if not storage.exists(path):
            raise PreparedTableError(f"{folder} holds no answers ({MANIFEST} is missing): run jobs/sample.py")
        try:
            table = cls(folder, AnswersManifest.from_json(storage.read_bytes(path)))
        except ValueError as error:
            raise PreparedTableError(
                f"{path} is damaged ({what_is_wrong(error)}): {_answers_remedy(folder)}"
            ) from error
        for name in table._parts():
            table._know(name, table._read(name, ["prompt_id", "draw"]))
        return table

    @property
    def keys(self) -> set[Key]:
        return set(self._keys)

    def append(self, rows: pa.Table) -> None:
        """Rows of ANSWERS; those whose keys are there already are left out."""
        rows = rows.select(ANSWERS.names).cast(ANSWERS)
        new = [number for number, key in enumerate(_keys_of(rows)) if key not in self._keys]
        if new:
            self._write(rows.take(new))

    def rows(self, keys: Sequence[Key]) -> Iterator[pa.Table]:
        """The rows of these keys, in this order, a few thousand at a time. Parts are read once and held."""
        read = cache(partial(self._read, columns=None))
        for first in range(0, len(keys), ROWS_TOGETHER):
            yield self._take(keys[first : first + ROWS_TOGETHER], read)

    def settle(self) -> None:
        """Make many parts few, in the order of the keys."""
        before, keys = self._parts(), sorted(self._keys)
        for rows in self.rows(keys):
            self._write(rows)
        after = {name for name, _ in self._keys.values()}
        for name in before:
            if name not in after:
                storage.delete(storage.join(self.folder, name))

    def _take(self, keys: Sequence[Key], read: Callable[[str], pa.Table]) -> pa.Table:
        wanted: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            wanted.setdefault(self._keys[key][0], []).append(number)
        pieces = [
            read(name).take([self._keys[keys[number]][1] for number in numbers]) for name, numbers in wanted.items()
        ]
        order = {number: row for row, number in enumerate(number for numbers in wanted.values() for number in numbers)}
        whole = pa.concat_tables([ANSWERS.empty_table(), *pieces]).combine_chunks()
        return whole.take([order[number] for number in range(len(keys))])

    def _write(self, rows: pa.Table) -> None:
        content, seal = sealed(encoded(rows.combine_chunks()))
        digest = hashlib.sha256(repr(_keys_of(rows)).encode()).hexdigest()[:16]
        name = f"part-{digest}-{seal}.parquet"
        storage.write_bytes(storage.join(self.folder, name), content)
        self._know(name, rows)

    def _know(self, name: str, rows: pa.Table) -> None:
        self._keys.update({key: (name, row) for row, key in enumerate(_keys_of(rows))})

    def _parts(self) -> list[str]:
        return [name for name in storage.names(self.folder) if _PART.fullmatch(name)]

    def _read(self, name: str, columns: list[str] | None) -> pa.Table:
        match = _PART.fullmatch(name)
        assert match
        with open_parquet(storage.join(self.folder, name), match[1], _answers_remedy(self.folder)) as file:
            return file.read(columns)


def _keys_of(rows: pa.Table) -> list[Key]:
    return list(zip(rows["prompt_id"].to_pylist(), rows["draw"].to_pylist(), strict=True))


def _answers_remedy(folder: str) -> str:
    return f"remove that file, or {folder}, and jobs/sample.py draws its answers again"
