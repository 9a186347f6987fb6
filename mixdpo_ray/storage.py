"""Files on local disks and in object stores, by one set of verbs. A path is a local path or a URI such as s3://bucket/key."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mixdpo_ray.errors import StorageError

if TYPE_CHECKING:
    import pyarrow.fs as pafs


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith("file://")


def may_be_on_hub(name: str) -> bool:
    """Whether it can be a name of the Hugging Face Hub, `name` or `owner/name`: anything deeper is a path."""
    return "://" not in name and not name.startswith((".", "/", "~")) and name.count("/") <= 1


def local(path: str) -> Path:
    return Path(path.removeprefix("file://"))


def absolute(path: str) -> str:
    """The path as every process finds it: workers have working directories of their own."""
    return str(local(path).absolute()) if is_local(path) else path


def from_here(path: str) -> str:
    """What a relative path leads to, in brackets: people forget that paths count from the working directory."""
    relative = is_local(path) and not local(path).is_absolute()
    return f" ({local(path).resolve()})" if relative else ""


def may_be_one(one: str, other: str) -> bool:
    """Whether two paths may lead to one file; a relative one began in a folder that nobody wrote down."""
    if not (is_local(one) and is_local(other)):
        return one == other
    parts = [[part for part in os.path.normpath(path).split("/") if part not in (".", "..")] for path in (one, other)]
    shorter, longer = sorted(parts, key=len)
    whole = all(path.startswith("/") for path in (one, other))
    return shorter == longer if whole else longer[len(longer) - len(shorter) :] == shorter


def join(path: str, *names: str) -> str:
    return "/".join([path.rstrip("/"), *names])


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn an operating system's or object store's refusal into one line that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full; free space (jobs/clean.py lists what is unused) and repeat"
            ) from error
        raise StorageError(f"{path}: {error}; check that the path exists and that you may use it") from error


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    import pyarrow as pa
    import pyarrow.fs as pafs

    if is_local(path):
        return pafs.LocalFileSystem(), absolute(path)
    with explained(path):
        try:
            filesystem, inner = pafs.FileSystem.from_uri(path)
        except pa.ArrowInvalid as error:
            raise StorageError(f"{path}: {error}; give a folder or a URI such as s3://bucket/folder") from None
        return filesystem, inner


def exists(path: str) -> bool:
    if is_local(path):
        with explained(path):
            return local(path).exists()
    import pyarrow.fs as pafs

    filesystem, inner = open_filesystem(path)
    with explained(path):
        return bool(filesystem.get_file_info(inner).type != pafs.FileType.NotFound)


def names(path: str) -> list[str]:
    """Names directly inside a folder, sorted; none where the folder does not exist."""
    import pyarrow.fs as pafs

    filesystem, inner = open_filesystem(path)
    with explained(path):
        found = filesystem.get_file_info(pafs.FileSelector(inner, allow_not_found=True))
        return sorted(info.base_name for info in found)


def make_folder(path: str) -> None:
    filesystem, inner = open_filesystem(path)
    with explained(path):
        filesystem.create_dir(inner, recursive=True)


def read_bytes(path: str) -> bytes:
    if is_local(path):
        with explained(path):
            return local(path).read_bytes()
    filesystem, inner = open_filesystem(path)
    with explained(path), filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def write_bytes(path: str, content: bytes) -> None:
    """All of it or nothing: a reader never sees a half-written file. Object stores promise that themselves."""
    filesystem, inner = open_filesystem(path)
    with explained(path):
        if not is_local(path):
            with filesystem.open_output_stream(inner) as stream:
                stream.write(content)
            return
        target = local(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def delete(path: str) -> None:
    """A file or a whole folder; nothing where there is nothing."""
    import pyarrow.fs as pafs

    filesystem, inner = open_filesystem(path)
    with explained(path):
        kind = filesystem.get_file_info(inner).type
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(inner)
        elif kind == pafs.FileType.File:
            filesystem.delete_file(inner)


def move(source: str, target: str) -> None:
    filesystem, inner = open_filesystem(source)
    with explained(target):
        filesystem.move(inner, open_filesystem(target)[1])


def copy(source: str, target: str) -> None:
    """A file or a folder, from any storage to any other."""
    import pyarrow.fs as pafs

    (from_fs, from_path), (to_fs, to_path) = open_filesystem(source), open_filesystem(target)
    with explained(target):
        if from_fs.get_file_info(from_path).type == pafs.FileType.Directory:
            to_fs.create_dir(to_path, recursive=True)  # a local one is not made by copying into it
        pafs.copy_files(from_path, to_path, source_filesystem=from_fs, destination_filesystem=to_fs)


def digest(path: str) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    filesystem, inner = open_filesystem(path)
    sha, size = hashlib.sha256(), 0
    with explained(path), filesystem.open_input_stream(inner) as stream:
        while piece := stream.read(1 << 20):
            sha.update(piece)
            size += len(piece)
    return size, sha.hexdigest()
