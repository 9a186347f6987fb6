"""The files of a playground, verified before a model is trained from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from mixdpo_ray.checksums import ChecksummedSettings, checksum, what_is_wrong
from mixdpo_ray.errors import StorageError


class MadeFiles(ChecksummedSettings):
    fingerprint: str
    settings: dict[str, Any]
    files: dict[str, str] = Field(default_factory=dict, description="Checksums by name inside the folder")


def checksums_in(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): checksum(path.read_bytes()) for path in files}


def read_made_files(mark: Path) -> MadeFiles:
    """What was made in the mark's folder; damage is refused."""
    folder = mark.parent
    try:
        made = MadeFiles.from_json(mark.read_bytes())
    except ValueError as error:
        raise _damaged(folder, mark, what_is_wrong(error)) from error
    for name, expected in made.files.items():
        path = folder / name
        if not path.is_file() or checksum(path.read_bytes()) != expected:
            raise _damaged(folder, path, "other content than was made")
    return made


def _damaged(folder: Path, path: Path, why: str) -> StorageError:
    return StorageError(f"{path} is missing or damaged ({why}): remove {folder}, and the same command makes it anew")
