"""Answers on disk by their addresses, so that none is paid twice, whoever asks: arms, checkpoints, other runs.

<storage>/judged/<model>-<digest>/replies-<time>-<id>.jsonl    one line an answer or a failure, each with a checksum

Every process that asks appends to a file of its own, so that half a line, which a kill leaves, has nothing glued to
it. Object stores cannot append: there every write is a file. Failures are rows with a reason and are missing: the next
job asks again. An answer stays the first one that was stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.checksums import checksummed_line, holds_its_checksum
from mixdpo_ray.errors import StorageError
from mixdpo_ray.judging.reply import ChatReply

JUDGED = "judged"  # folder of such stores under output.storage_path
FILE = re.compile(r"replies-.*\.jsonl")
_ADDRESS = re.compile(rb'\{"address":"([0-9a-f]{64})"(,"failure":)?')  # how every line begins


def reply_folder(storage_path: str, model: str) -> str:
    """The folder of one model's answers."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip(".-")[:60]
    digest = hashlib.sha256(json.dumps(model).encode()).hexdigest()[:8]
    return storage.join(storage.absolute(storage_path), JUDGED, f"{readable}-{digest}")


class ReplyStore:
    def __init__(self, folder: str):
        """Read what is there."""
        self.folder = folder
        self._lines: dict[str, bytes] = {}  # of answers
        self._failures: dict[str, bytes] = {}
        self._read: dict[str, int] = {}  # bytes of each file
        self._name, self._written = _new_name(), 0
        self.refresh()

    def __contains__(self, address: str) -> bool:
        return address in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, address: str) -> ChatReply | None:
        """The answer, else the failure that was stored last; None where it was never asked."""
        line = self._lines.get(address) or self._failures.get(address)
        return None if line is None else ChatReply.from_row(_row(line))

    def refresh(self) -> None:
        """Read what other processes have written meanwhile."""
        for name in storage.names(self.folder):
            if FILE.fullmatch(name) and not name.startswith(self._name):
                self._read_file(name)

    def append(self, replies: Iterable[tuple[str, ChatReply]]) -> None:
        """All of them are on disk when it returns."""
        lines = [checksummed_line(_in_order(address, reply)) for address, reply in replies]
        content = b"".join(line + b"\n" for line in lines)
        if storage.is_local(self.folder):
            try:
                self._append_locally(content)
            except StorageError:  # the file may end in half a line, which nothing is to be glued to
                self._name = _new_name()
                raise
        else:
            storage.write_bytes(self._path(f"{self._name}-{self._written:06d}.jsonl"), content)
        self._written += 1
        for line in lines:
            self._keep(line)

    def _append_locally(self, content: bytes) -> None:
        path = storage.local(self._path(f"{self._name}.jsonl"))
        with storage.explained(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def _read_file(self, name: str) -> None:
        path = self._path(name)
        known = self._read.get(name, 0)
        if storage.is_local(path):
            with storage.explained(path), storage.local(path).open("rb") as file:
                file.seek(known)
                content = file.read()
        elif known:
            return  # written once
        else:
            content = storage.read_bytes(path)
        whole = content[: content.rfind(b"\n") + 1]  # behind it, half a line of a process that was killed or writes
        for number, line in enumerate(whole.splitlines(), 1):
            if not holds_its_checksum(line) or not _ADDRESS.match(line):
                raise _damaged(path, f"line {number}" if not known else f"behind byte {known}")
            self._keep(line)
        self._read[name] = known + len(whole)

    def _keep(self, line: bytes) -> None:
        found = _ADDRESS.match(line)
        assert found is not None
        kept = self._failures if found[2] else self._lines
        if found[2]:
            kept[found[1].decode()] = line
        else:
            kept.setdefault(found[1].decode(), line)

    def _path(self, name: str) -> str:
        return storage.join(self.folder, name)


def _new_name() -> str:
    return f"replies-{time.time_ns():019d}-{uuid.uuid4().hex[:6]}"


def _in_order(address: str, reply: ChatReply) -> dict[str, Any]:
    failure = {"failure": reply.failure} if reply.failure else {}
    return {"address": address, **failure, **reply.to_row()}


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    return {name: value for name, value in row.items() if name not in ("address", "checksum")}


def _damaged(path: str, where: str) -> StorageError:
    return StorageError(
        f"{path} {where} has other content than was written: restore the file from a copy, or delete it and its "
        "answers are asked for again"
    )
