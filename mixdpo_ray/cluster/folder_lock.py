"""A folder is used by one process at a time, and nothing half-written takes its name.

The lock is a file beside the folder that its holder keeps open: the kernel lets go when the holder dies, however it
dies, and wakes who waits. The library filelock asks again and again instead, and where a file system knows no locks it
leaves marks that outlive their owner. Object stores have neither.

On a local disk everything is written beside and moved at the end. Object stores have no move: there the manifest, which
is written last, is the commit.
"""

from __future__ import annotations

import fcntl
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mixdpo_ray import storage
from mixdpo_ray.errors import RunConflictError

UNFINISHED = ".unfinished-"


def prepared_folder(storage_path: str, fingerprint: str) -> str:
    return storage.join(storage.absolute(storage_path), "prepared", fingerprint)


@dataclass(frozen=True)
class FolderLock:
    folder: str
    ending: str = ".lock"  # of the file's name

    @property
    def path(self) -> Path:
        folder = storage.local(self.folder)
        return folder.with_name(f".{folder.name}{self.ending}")

    @contextmanager
    def if_free(self) -> Iterator[bool]:
        """Whether nobody holds it; if so, nobody else can take it while the body runs."""
        with self._opened() as file:
            yield file is None or _taken(file)

    @contextmanager
    def or_refuse(self, advice: str) -> Iterator[None]:
        """Hold it while the body runs; where another process does, say so and what to do."""
        with self.if_free() as free:
            if not free:
                raise RunConflictError(f"{self.folder} is in use by {self._holder()}: {advice}")
            yield

    @contextmanager
    def or_wait(self) -> Iterator[None]:
        """Hold it while the body runs, which begins when no other process does."""
        with self._opened() as file:
            if file is not None and not _taken(file):
                print(f"waiting: {self._holder()} writes {self.folder}", file=sys.stderr)
                _taken(file, wait=True)
            yield

    @contextmanager
    def _opened(self) -> Iterator[TextIO | None]:
        if not storage.is_local(self.folder):
            yield None
            return
        with storage.explained(str(self.path)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+")
        with file:
            yield file

    def _holder(self) -> str:
        """The process that holds it, which wrote its name into the file; earlier versions wrote none."""
        try:
            return self.path.read_text() or "another process"
        except OSError:
            return "another process"


def _taken(file: TextIO, *, wait: bool = False) -> bool:
    with storage.explained(file.name):
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
    return True


def exclusive(folder: str) -> AbstractContextManager[None]:
    """A second driver that wants the same table waits for the first and then finds it made."""
    return FolderLock(folder).or_wait()


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
