"""Large jsonl files cut into runs of lines, so that several tasks can read one and rows still know their numbers.

Row numbers need the lines before to be counted: a file of several pieces is read once for its line ends, at the speed
of the disk or the network, before it is read again in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixdpo_ray import storage

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class LineRange:
    start: int  # byte of the first line
    first_row: int
    rows: int | None  # lines; None is to the end


def line_ranges(file: str, bytes_each: int) -> list[LineRange]:
    """Runs of whole lines of about so many bytes, covering the file."""
    starts = _line_starts(file, bytes_each)
    rows = [
        following[1] - first_row if following else None
        for (_, first_row), following in zip(starts, [*starts[1:], None], strict=True)
    ]
    return [LineRange(start, first_row, count) for (start, first_row), count in zip(starts, rows, strict=True)]


def _line_starts(file: str, bytes_each: int) -> list[tuple[int, int]]:
    """Byte and number of the first line that begins at or behind every multiple of `bytes_each`."""
    starts, row, offset = [(0, 0)], 0, 0
    filesystem, inner = storage.open_filesystem(file)
    size = filesystem.get_file_info(inner).size
    if size is not None and size <= bytes_each:
        return starts
    with storage.explained(file), filesystem.open_input_stream(inner) as stream:
        while block := stream.read(READ_BYTES):
            at = 0
            while (wanted := starts[-1][0] + bytes_each - offset) <= len(block):
                end = block.find(b"\n", max(wanted - 1, at))
                if end < 0:
                    break
                row += block.count(b"\n", at, end + 1)
                at = end + 1
                starts.append((offset + at, row))
            row += block.count(b"\n", at)
            offset += len(block)
    return [start for start in starts if start[0] < offset or start[0] == 0]
