"""Parquet files whose every byte is verified before Parquet sees it.

    row groups | size and checksum of each of their column chunks | footer

A file's seal, which the table's manifest keeps, is the size and the checksum of all that follows the row groups. So a
file is verified from its end to the chunks that are asked for, and no more of it is read for that: one read for the end
and one for each run of row groups. Other readers of Parquet do not see what lies before the footer. Parquet's own page
checksums leave footers and page headers out, where a flipped bit can change values silently. A file without a seal was
written before there were any, and is read as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from mixdpo_ray.checksums import checksum

MAGIC = b"PAR1"
CHUNK = np.dtype([("size", "<u4"), ("checksum", "<u4")])
OTHER_CONTENT = "it has other content than was written"


def sealed(content: pa.Buffer) -> tuple[bytes, str]:
    """A file with its checksums, and its seal."""
    metadata, whole = pq.read_metadata(pa.BufferReader(content)), memoryview(content)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = range(metadata.num_columns)
    sizes = [group.column(number).total_compressed_size for group in groups for number in columns]
    starts, end = _starts(sizes), len(whole) - _footer_size(whole)
    assert starts[-1] == end, "column chunks follow each other up to the footer"
    chunks = np.zeros(len(sizes), CHUNK)
    chunks["size"], chunks["checksum"] = sizes, _checksums(whole, starts)
    behind = chunks.tobytes() + whole[end:]
    return b"".join([whole[:end], behind]), f"{len(behind)}-{checksum(behind)}"


@dataclass(frozen=True)
class Footer:
    """What a file says of itself, so that it is read once."""

    metadata: pq.FileMetaData
    starts: NDArray[np.int64] | None = None  # of the column chunks, row group by row group; None: nothing is verified
    checksums: NDArray[np.uint32] | None = None

    @classmethod
    def read(cls, stream: pa.NativeFile, seal: str) -> Self:
        """Raises an OSError where the file's end is damaged. Without a seal it is believed."""
        if not seal:
            return cls(pq.read_metadata(stream))
        size, _, expected = seal.partition("-")
        end = memoryview(stream.read_at(int(size), max(0, stream.size() - int(size))))
        if checksum(end) != expected:
            raise OSError(OTHER_CONTENT)
        footer = len(end) - _footer_size(end)
        chunks = np.frombuffer(end[:footer], CHUNK)
        metadata = pq.read_metadata(pa.BufferReader(end[footer:]))  # which Parquet looks for from the end
        return cls(metadata, _starts(chunks["size"]), chunks["checksum"])


class SealedFile:
    """A Parquet file that is open, of which nothing is believed that was not verified."""

    def __init__(self, stream: pa.NativeFile, footer: Footer):
        self.footer = footer
        self._stream = stream

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        metadata = self.footer.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def read(self, columns: list[str] | None = None, groups: Sequence[int] | None = None) -> pa.Table:
        """Columns of ascending row groups; all of them where none are named."""
        metadata = self.footer.metadata
        groups = range(metadata.num_row_groups) if groups is None else groups
        source = self._stream if self.footer.starts is None else self._verified(columns, groups)
        with pq.ParquetFile(source, metadata=metadata) as file:
            return file.read_row_groups(groups, columns=columns)

    def verify(self) -> None:
        """Read every chunk, and keep none; there is nothing to compare a file without checksums with."""
        if self.footer.starts is not None:
            self._verified(None, range(self.footer.metadata.num_row_groups))

    def _verified(self, columns: list[str] | None, groups: Sequence[int]) -> pa.BufferReader:
        """The file with holes, which take no memory, where nothing was asked for."""
        wanted = np.add.outer(np.asarray(groups, np.int64) * self.footer.metadata.num_columns, self._numbers(columns))
        content = np.empty(self._stream.size(), np.uint8)
        for run in np.split(wanted.ravel(), np.flatnonzero(np.diff(wanted.ravel()) != 1) + 1):
            if len(run):
                self._read_run(int(run[0]), int(run[-1]) + 1, content)
        return pa.BufferReader(pa.py_buffer(content))

    def _numbers(self, columns: list[str] | None) -> NDArray[np.int64]:
        """Numbers of the columns in a row group."""
        schema, count = self.footer.metadata.schema, self.footer.metadata.num_columns
        named = [columns is None or schema.column(number).path.split(".")[0] in columns for number in range(count)]
        return np.flatnonzero(named)

    def _read_run(self, first: int, behind: int, content: NDArray[np.uint8]) -> None:
        """Neighbouring chunks in one read."""
        assert self.footer.starts is not None
        assert self.footer.checksums is not None
        edges = self.footer.starts[first : behind + 1]
        self._stream.seek(int(edges[0]))
        self._stream.readinto(content[edges[0] : edges[-1]])
        if _checksums(content.data, edges) != self.footer.checksums[first:behind].tolist():
            raise OSError(OTHER_CONTENT)


def _starts(sizes: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Bounds: the byte at which each chunk begins, and where the last one ends."""
    return np.cumsum(np.concatenate([[len(MAGIC)], sizes]), dtype=np.int64)


def _checksums(content: memoryview, edges: NDArray[np.int64]) -> list[int]:
    return [xxhash.xxh3_64_intdigest(content[first:end]) & 0xFFFFFFFF for first, end in pairwise(edges.tolist())]


def _footer_size(content: memoryview) -> int:
    """Bytes of the footer, the field of its size and the magic bytes."""
    return int.from_bytes(content[-8:-4], "little") + 8
