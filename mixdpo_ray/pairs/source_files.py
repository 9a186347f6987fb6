"""The files that a path, a glob or a folder stands for.

Links are followed on local disks. One that leads nowhere, or back to a folder that it lies in, is refused by its name:
half of the data would be missing without a word, or all of it would be read forty times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow.fs as pafs

from mixdpo_ray import storage
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.file_kinds import COMPRESSIONS, READABLE, kind_by_name
from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.wording import what_was_meant

SAVED_BY_DATASETS = ("state.json", "dataset_dict.json")


def expand_paths(path: str | Sequence[str]) -> list[str]:
    """The files of paths, globs and folders, each once, in the order of their names."""
    paths = [path] if isinstance(path, str) else list(path)
    files = dict.fromkeys(file for one in paths for file in _expand(one))
    return list(files)


def _expand(path: str) -> list[str]:
    filesystem, inner = storage.open_filesystem(path)
    with storage.explained(path):
        kind = filesystem.get_file_info(inner).type
        if kind == pafs.FileType.File:
            found = [inner]
        elif kind == pafs.FileType.NotFound:
            found = _glob(filesystem, inner)
        else:
            found = _inside(filesystem, inner)
    if storage.is_local(path):
        for file in found:
            _refuse_dangling(file)
    if not found:
        meant = _file_meant(path) or "check the path"
        raise DataError(
            f"data.source.path {path}: no file there{storage.from_here(path)} that ends in {READABLE}; {meant}"
        )
    return [file if storage.is_local(path) else f"{path.split('://')[0]}://{file}" for file in sorted(found)]


def _file_meant(path: str) -> str:
    """A question for the file of nearly this name beside where it should be; nothing where there is none."""
    beside = storage.local(path).parent
    if not storage.is_local(path) or not beside.is_dir():
        return ""
    return what_was_meant(storage.local(path).name, [entry.name for entry in beside.iterdir()])


def _glob(filesystem: pafs.FileSystem, pattern: str) -> list[str]:
    """Files that match * and ? (within one folder), [...] and ** (any folders)."""
    fixed = re.split(r"[*?\[]", pattern)[0]
    if fixed == pattern:
        _refuse_dangling(pattern)
        return []
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    matcher = re.compile("".join(part if part.startswith("[") else signs.get(part, re.escape(part)) for part in parts))
    folder = fixed.rpartition("/")[0] or "/"
    levels = None if "**" in pattern else pattern.count("/") - folder.rstrip("/").count("/")
    return [file for file in _files(filesystem, folder, levels) if matcher.fullmatch(file)]


def _inside(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    """The data files anywhere inside a folder; hidden and other ones are left out."""
    files = _files(filesystem, folder, None, hidden=False)
    return [file for file in files if _is_data(PurePosixPath(file).relative_to(folder))]


def _is_data(name: PurePosixPath) -> bool:
    return not any(part.startswith((".", "_")) for part in name.parts) and kind_by_name(name.name) is not None


def _files(filesystem: pafs.FileSystem, folder: str, levels: int | None, *, hidden: bool = True) -> Iterator[str]:
    """Every file so many levels below a folder."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        yield from _local_files(folder, levels, hidden, ())
        return
    infos = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    yield from (info.path for info in infos if info.type == pafs.FileType.File)


def _local_files(folder: str, levels: int | None, hidden: bool, above: tuple[str, ...]) -> Iterator[str]:
    """Links that lead nowhere are among them: their names tell whether they matter."""
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry.path
        elif levels != 1 and (hidden or not entry.name.startswith((".", "_"))):
            if os.path.realpath(entry.path) in above:
                raise DataError(f"{entry.path} is a link to a folder that it lies in: remove it, or name the files")
            yield from _local_files(entry.path, None if levels is None else levels - 1, hidden, above)


def _refuse_dangling(file: str) -> None:
    path = Path(file)
    if path.is_symlink() and not path.exists():
        raise DataError(f"{file} is a link to {path.readlink()}, which is not there: mend or remove it")


def saved_by_datasets(path: str) -> bool:
    """Whether it is a folder that save_to_disk wrote."""
    return storage.is_local(path) and any((storage.local(path) / name).is_file() for name in SAVED_BY_DATASETS)


def is_data_set(settings: SourceSettings) -> bool:
    """A name on the hub, or a local folder of which a configuration, folder or split is asked for."""
    path = settings.path
    if not isinstance(path, str) or any(sign in path for sign in "*?["):
        return False
    if Path(path).exists():
        return Path(path).is_dir() and any((settings.config, settings.data_dir, settings.split))
    looks_like_a_file = kind_by_name(path) is not None or Path(path).suffix in COMPRESSIONS  # and so a mistaken path
    return storage.may_be_on_hub(path) and not looks_like_a_file
