"""A prepared table's folder while it is written: by one driver at a time, and never half a table under its name.

On a local disk everything is written beside and moved at the end. Object stores have no move: there the manifest, which
is written last, is the commit.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixdpo_ray import storage

UNFINISHED = ".unfinished-"
LOCK = ".lock"


def prepared_folder(storage_path: str, fingerprint: str) -> str:
    return storage.join(storage.absolute(storage_path), "prepared", fingerprint)


def lock_file(folder: str) -> Path:
    path = storage.local(folder)
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """A second driver that wants the same table waits for the first and then finds it made."""
    if not storage.is_local(folder):
        yield
        return
    path = lock_file(folder)
    with storage.explained(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another process writes {folder}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def atomic_folder(folder: str) -> Iterator[str]:
    """The folder to write into; it becomes `folder` when the body is done, and goes away when it fails."""
    if not storage.is_local(folder):
        yield folder
        return
    path = storage.local(folder)
    beside = str(path.with_name(f"{UNFINISHED}{path.name}"))
    storage.delete(beside)  # of a process that was killed
    storage.make_folder(beside)
    try:
        yield beside
        storage.delete(folder)  # nothing, or something without a manifest
        storage.move(beside, folder)
    finally:
        storage.delete(beside)
