"""A file system that counts what is read from it: local files under the address fsspec+counted:///path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]


class Counts:
    def __init__(self) -> None:
        self.bytes = self.reads = self.opened = 0

    def clear(self) -> None:
        self.bytes = self.reads = self.opened = 0


COUNTS = Counts()


class _CountedFile:
    """What pyarrow asks of a file. One read is one request of an object store."""

    def __init__(self, path: str):
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        COUNTS.bytes += len(content)
        COUNTS.reads += 1
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class CountedFileSystem(LocalFileSystem):  # type: ignore[misc]
    protocol = "counted"
    cachable = False

    def open(self, path: str, mode: str = "rb", **_: Any) -> _CountedFile:
        assert mode == "rb", "only reading is counted"
        COUNTS.opened += 1
        return _CountedFile(self._strip_protocol(path))

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("counted://").lstrip("/")


def counted(folder: Path) -> str:
    """The address of a folder under which everything read is counted in COUNTS."""
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    return f"fsspec+counted://{folder.absolute()}"
