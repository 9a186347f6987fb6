"""The setting that names a source, in what is said of that source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mixdpo_ray.errors import DataError


@contextmanager
def blamed_on(setting: str) -> Iterator[None]:
    """Let what the body raises speak of this setting: whoever reads a source takes it for data.source."""
    try:
        yield
    except DataError as error:
        raise type(error)(str(error).replace("data.source", setting)) from error
