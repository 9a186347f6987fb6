"""The sources of raw rows: files that workers read in pieces, or a Hugging Face data set.

A data set on the hub that consists of parquet or JSON files is read like any other files, by the workers, from hf://
addresses that name the commit. What has no such files (a folder that save_to_disk wrote, other kinds of files) is
memory-mapped on the driver and handed to Ray's object store a few thousand rows at a time, never whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo_ray import storage
from mixdpo_ray.checksums import checksum
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.file_kinds import kind_by_name
from mixdpo_ray.pairs.reading import RawRow, first_columns
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from mixdpo_ray.pairs.source_files import expand_paths, is_data_set, saved_by_datasets
from mixdpo_ray.preparation.file_slices import FileSlice, slices_of
from mixdpo_ray.training.hub import brief_hub, why_not_loaded

ROW = "__row"
ROWS_PER_BLOCK = 2_000
SAMPLED = 1 << 16  # bytes at each end of a file


@dataclass(frozen=True)
class Source:
    settings: SourceSettings
    identity: dict[str, Any]  # what tells another state of the source, without reading it
    files: tuple[str, ...] = ()
    mapped: Any = field(default=None, repr=False)  # a memory-mapped datasets.Dataset, where there are no files

    @property
    def name(self) -> str:
        """How rows of a mapped data set are named in place of a file."""
        return self.settings.name

    @property
    def bytes(self) -> float:
        """Unknown sizes count as large."""
        sizes = [size for _, size, *_ in self.identity["files"]] if "files" in self.identity else [None]
        return sum(math.inf if size is None else size for size in sizes)

    def sample(self) -> str:
        """A checksum of both ends of every local file: size and time may hide that it was changed."""
        files = [str(file) for file, *_ in self.identity.get("files", []) if storage.is_local(str(file))]
        with ThreadPoolExecutor(16) as pool:
            return checksum("".join(pool.map(_ends, files)).encode())

    def columns(self, max_row_bytes: int) -> list[str]:
        if self.mapped is not None:
            return list(self.mapped.column_names)
        return first_columns(self.files, max_row_bytes)

    def file_slices(self) -> list[FileSlice]:
        """What single tasks read, in the order of the files. Files are looked at side by side: stores answer slowly."""
        with ThreadPoolExecutor(16) as pool:
            return [file_slice for file_slices in pool.map(slices_of, self.files) for file_slice in file_slices]

    def blocks(self) -> Iterator[pa.Table]:
        """A mapped data set's rows with their numbers."""
        first = 0
        for rows in self.mapped.with_format("arrow").iter(ROWS_PER_BLOCK):
            yield rows.append_column(ROW, pa.array(np.arange(first, first + len(rows))))
            first += len(rows)


def block_rows(name: str, block: pa.Table) -> Iterator[RawRow]:
    for value in block.to_pylist():
        yield RawRow(name, value.pop(ROW), value)


def find_sources(data: DataSettings) -> list[Source]:
    """The source to train on, and the held-out one where it has its own."""
    found = []
    for setting, of_source in data.by_source.items():
        with blamed_on(setting):
            found.append(find_source(of_source.source))
    return found


def find_source(settings: SourceSettings) -> Source:
    path = settings.path
    if isinstance(path, str) and saved_by_datasets(path):
        return _from_disk(settings, path)
    if isinstance(path, str) and is_data_set(settings):
        return _from_hub(settings, path)
    files = tuple(expand_paths(path))
    return Source(settings, {"files": file_states(files)}, files)


def _ends(file: str) -> str:
    path = storage.local(file)
    with storage.explained(file), path.open("rb") as stream:
        head = stream.read(SAMPLED)
        stream.seek(max(0, path.stat().st_size - SAMPLED))
        return checksum(head + stream.read(SAMPLED))


def file_states(files: tuple[str, ...]) -> list[list[object]]:
    """Path, size and time of each file; an hf:// address names the commit, so that it says everything itself."""
    return [[file, None, None] if file.startswith("hf://") else [file, *_size_and_time(file)] for file in files]


def _size_and_time(file: str) -> tuple[int | None, int | None]:
    filesystem, inner = storage.open_filesystem(file)
    with storage.explained(file):
        info = filesystem.get_file_info(inner)
        return info.size, info.mtime_ns


def _from_disk(settings: SourceSettings, path: str) -> Source:
    import datasets

    loaded = datasets.load_from_disk(path)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _pick_split(loaded, settings, path)
    elif settings.split not in (None, "train"):
        raise DataError(f"{path} holds one split: leave data.source.split {settings.split!r} out")
    states = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(Path(path).rglob("*.*"))]
    return Source(settings, {"files": states, "fingerprint": loaded._fingerprint}, mapped=loaded)


def _pick_split(loaded: Any, settings: SourceSettings, path: str) -> Any:
    split = settings.split or "train"
    if split not in loaded:
        raise DataError(f"{path} has no split {split!r}: set data.source.split to one of {', '.join(loaded)}")
    return loaded[split]


def _from_hub(settings: SourceSettings, path: str) -> Source:
    with brief_hub(path):  # around the import: datasets looks once whether it is to work offline
        return _from_data_set(settings, path)


def _from_data_set(settings: SourceSettings, path: str) -> Source:
    import datasets

    split = settings.split or "train"
    try:
        builder = datasets.load_dataset_builder(
            path, name=settings.config, data_dir=settings.data_dir, revision=settings.revision
        )
        files = _plain_files(builder, split)
        if files:
            return Source(settings, {"files": file_states(files)}, files)
        builder.download_and_prepare()
        mapped = builder.as_dataset(split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"data.source.path {path!r} is no file or folder here, and as a Hugging Face data set: "
            f"{why_not_loaded(path, DataError(_one_line(error)))}"
        ) from error
    identity = {"fingerprint": mapped._fingerprint, "info": json.loads(json.dumps(builder.hash or ""))}
    return Source(settings, identity, mapped=mapped)


def _plain_files(builder: Any, split: str) -> tuple[str, ...]:
    """The data files of a split, where our own readers can read them: then nothing is downloaded to the driver."""
    files = (builder.config.data_files or {}).get(split)
    if not files or getattr(builder.config, "field", None):
        return ()
    names = tuple(str(file) for file in files)
    return names if all(map(kind_by_name, names)) else ()


def _one_line(error: Exception) -> str:
    return " ".join(islice(str(error).split(), 60))
