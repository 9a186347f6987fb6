"""What W&B's own format says of an offline run: records of its protocol, in blocks as LevelDB writes a log."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7  # bytes; the file begins with a header of as many
WHOLE, FIRST, LAST = 1, 2, 4


def records(file: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2 as protocol

    data, position, collected = file.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        part = data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        collected = part if kind in (WHOLE, FIRST) else collected + part
        if kind in (WHOLE, LAST):
            record = protocol.Record()
            record.ParseFromString(collected)
            yield record


def rows(file: Path) -> list[dict[str, Any]]:
    """Its history; of nested values the first name."""
    found = [record.history for record in records(file) if record.WhichOneof("record_type") == "history"]
    return [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in history.item} for history in found
    ]


def run_of(file: Path) -> Any:
    return next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")
