"""Checksums that find damage, not attacks: XXH3, which hashes at the speed of memory.

A small JSON file carries its own: the text is hashed with the checksum left empty. Files that were written before there
were checksums have none and are read as they are. A line of a file that grows carries one behind its last field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Self

import xxhash
from pydantic import Field, ValidationError

from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import first_line

_LINE = re.compile(rb'(.*),"checksum":"([0-9a-f]{16})"\}')


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


def json_line(row: Mapping[str, Any]) -> bytes:
    """The bytes of a row without its checksum."""
    return json.dumps(row, separators=(",", ":")).encode()


def checksummed_line(row: Mapping[str, Any]) -> bytes:
    return json_line({**row, "checksum": checksum(json_line(row))})


def holds_its_checksum(line: bytes) -> bool | None:
    """Whether a line is as it was written; None where it carries no checksum."""
    match = _LINE.fullmatch(line)
    return None if match is None else checksum(match[1] + b"}") == match[2].decode()


def what_is_wrong(error: ValueError) -> str:
    """One line for what `from_json` raises."""
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else first_line(error)


def _field(value: str) -> bytes:
    return f'"checksum": "{value}"'.encode()
