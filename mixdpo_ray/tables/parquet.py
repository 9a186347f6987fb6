"""Parquet files of prepared tables: how they are written, and columns of them read piece by piece.

Token columns are written without dictionaries: tokens hardly repeat inside a row group, so a dictionary made files
larger by a third and slower to write. Statistics of lists are never asked for and took a third of the footer, which a
reader fetches before the first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables.sealed import Footer, SealedFile, sealed
from mixdpo_ray.wording import first_line

ROW_GROUP = 16  # rows with tokens: what a rank reads at least for each of its pairs
NARROW_ROW_GROUP = 1 << 16  # rows without


def write_parquet(path: str, rows: pa.Table) -> str:
    """All of it or nothing. The seal of the file, by which it is read."""
    content, seal = sealed(encoded(rows))
    storage.write_bytes(path, content)
    return seal


def encoded(rows: pa.Table) -> pa.Buffer:
    """The file without checksums."""
    buffer = pa.BufferOutputStream()
    if "prompt_ids" in rows.column_names:
        pq.write_table(
            rows, buffer, row_group_size=ROW_GROUP, use_dictionary=False, write_statistics=False,
            compression="zstd", compression_level=1,
        )  # fmt: skip
    else:
        pq.write_table(rows, buffer, row_group_size=NARROW_ROW_GROUP)
    return buffer.getvalue()


@contextmanager
def open_parquet(path: str, seal: str, remedy: str, footer: Footer | None = None) -> Iterator[SealedFile]:
    """A file of a table that was committed: missing or damaged, it is the table that is broken."""
    try:
        filesystem, inner = storage.open_filesystem(path)
        with filesystem.open_input_file(inner) as stream:
            yield SealedFile(stream, footer or Footer.read(stream, seal))
    except (OSError, pa.ArrowException) as error:
        raise PreparedTableError(f"{path} is missing or damaged ({first_line(error)}): {remedy}") from error


class ParquetColumns:
    """A file whose columns are read one row group at a time; its footer is read once."""

    def __init__(self, path: str, seal: str, remedy: str):
        self.path, self.seal, self.remedy = path, seal, remedy
        with open_parquet(path, seal, remedy) as file:
            self._footer, sizes = file.footer, file.group_rows
        self.names: list[str] = self._footer.metadata.schema.to_arrow_schema().names
        self.groups = len(sizes)
        self.starts: NDArray[np.int64] = np.cumsum([0, *sizes])  # rows before each row group, and all of them

    def column(self, name: str, group: int) -> pa.ChunkedArray:
        with self._open() as file:
            return file.read([name], [group])[name]

    def arrays(self, kinds: dict[str, type[np.generic]]) -> list[NDArray[Any]]:
        """Whole columns as arrays of these kinds, never more of the file in memory than one row group."""
        found: list[NDArray[Any]] = [np.empty(int(self.starts[-1]), kind) for kind in kinds.values()]
        with self._open() as file:
            for group in range(self.groups):
                rows = file.read(list(kinds), [group])
                for name, array in zip(kinds, found, strict=True):
                    array[self.starts[group] : self.starts[group + 1]] = rows[name].to_numpy()
        return found

    def _open(self) -> AbstractContextManager[SealedFile]:
        return open_parquet(self.path, self.seal, self.remedy, self._footer)
