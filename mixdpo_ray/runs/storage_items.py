"""Something that lies in storage: how large it is, who uses it, and how it goes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs

from mixdpo_ray import storage
from mixdpo_ray.cluster.folder_lock import FolderLock
from mixdpo_ray.wording import size_text

USERS_TOLD = 3  # of those who use a table
OLD = timedelta(days=1)  # object stores have no locks: what is younger may still be being written


@dataclass(frozen=True)
class Item:
    path: str
    bytes: int
    about: str
    used_by: tuple[str, ...] = ()
    lock: FolderLock | None = None  # held by whoever is writing it
    file: bool = False  # and no folder

    @property
    def unused(self) -> bool:
        return not self.used_by


def remove_unused(items: Sequence[Item]) -> list[Item]:
    """Those of the items that were removed: unused, and locked by nobody."""
    removed = []
    for item in items:
        if not item.unused:
            continue
        with nullcontext(True) if item.lock is None else item.lock.if_free() as free:
            if free:
                storage.delete(item.path)
                removed.append(item)
    return removed


def describe_items(items: Sequence[Item]) -> str:
    lines = [
        f"{size_text(item.bytes):>10}  {item.path}  {item.about}; used by {_some(item.used_by) or 'nothing'}"
        for item in sorted(items, key=lambda item: (item.unused, -item.bytes))
    ]
    unused = [item for item in items if item.unused]
    if not unused:
        return "\n".join([*lines, "everything is used" if lines else "nothing is there"])
    counts = ((sum(item.file == kind for item in unused), word) for kind, word in ((False, "folder"), (True, "file")))
    found = " and ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count)
    return "\n".join([*lines, f"used by nothing: {found}, {size_text(sum(item.bytes for item in unused))}"])


def _some(names: Sequence[str]) -> str:
    """The first few of many."""
    more = len(names) - USERS_TOLD
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:USERS_TOLD])} and {more} more"


def item_at(path: str, about: str, used_by: tuple[str, ...] = (), lock: FolderLock | None = None) -> Item:
    """The item with its size."""
    files = _files(path)
    file = [info.path for info in files] == [storage.open_filesystem(path)[1]]
    return Item(path, sum(info.size or 0 for info in files), about, used_by, lock, file)


def too_young(path: str) -> tuple[str, ...]:
    """Name who may still be writing: where there is no lock to look at, time tells."""
    if storage.is_local(path):
        return ()
    newest = max((info.mtime for info in _files(path) if info.mtime), default=None)
    young = newest is not None and datetime.now(UTC) - newest < OLD
    return ("whoever wrote it less than a day ago",) if young else ()


def _files(path: str) -> list[pafs.FileInfo]:
    filesystem, inner = storage.open_filesystem(path)
    with storage.explained(path):
        itself = filesystem.get_file_info(inner)
        if itself.type == pafs.FileType.File:
            return [itself]
        found = filesystem.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    return [info for info in found if info.type == pafs.FileType.File]
