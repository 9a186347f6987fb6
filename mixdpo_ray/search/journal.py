"""Optuna's journal of a study: every line has a checksum, and all of them are verified when it is opened.

Lines that were written before there were checksums are only checked to be whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from mixdpo_ray import storage
from mixdpo_ray.checksums import checksum, holds_its_checksum, json_line
from mixdpo_ray.errors import StorageError

CHECKSUM = "checksum"


class ChecksummedJournal(JournalFileBackend):  # type: ignore[misc]
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([{**log, CHECKSUM: checksum(json_line(log))} for log in logs])


def open_journal(path: Path) -> ChecksummedJournal:
    """The journal, made where there is none. Nobody else may use it meanwhile."""
    with storage.explained(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of a driver that was killed
        if path.exists():
            _verify(path)
    return ChecksummedJournal(str(path))


def _verify(path: Path) -> None:
    """Refuse damage, and remove what a killed driver can leave: half a line, which the next one would be glued to."""
    content = path.read_bytes()
    *lines, rest = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not _is_sound(line):
            raise _damaged(path, number)
    if rest and _is_sound(rest[:-1]):  # half a line is no line without its last byte: the byte behind it was its end
        raise _damaged(path, len(lines) + 1)
    if rest:
        with path.open("rb+") as file:
            file.truncate(len(content) - len(rest))


def _is_sound(line: bytes) -> bool:
    if (held := holds_its_checksum(line)) is not None:
        return held
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _damaged(path: Path, line: int) -> StorageError:
    return StorageError(
        f"{path} line {line} has other content than was written: restore the file from a copy, or delete the study and "
        "start over (output.fresh=true)"
    )
