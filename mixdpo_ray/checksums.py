"""Checksums that find damage, not attacks: XXH3, which hashes at the speed of memory.

A small JSON file carries its own: the text is hashed with the checksum left empty. Files that were written before there
were checksums have none and are read as they are.
"""

from __future__ import annotations

from typing import Self

import xxhash
from pydantic import Field, ValidationError

from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import first_line


def checksum(content: bytes | memoryview) -> str:
    return str(xxhash.xxh3_64_hexdigest(content))


class ChecksummedSettings(Settings):
    """What is stored as JSON beside a checksum of its text."""

    checksum: str = Field("", description="Of the file's text with this left empty; none before there were checksums")

    def to_json(self) -> bytes:
        text = self.model_copy(update={"checksum": ""}).model_dump_json(indent=2).encode()
        return text.replace(_field(""), _field(checksum(text)), 1)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Raises a ValueError where the content is damaged."""
        found = cls.model_validate_json(content)
        if found.checksum and checksum(content.replace(_field(found.checksum), _field(""), 1)) != found.checksum:
            raise ValueError("other content than was written")
        return found


def what_is_wrong(error: ValueError) -> str:
    """One line for what `from_json` raises."""
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else first_line(error)


def _field(value: str) -> bytes:
    return f'"checksum": "{value}"'.encode()
