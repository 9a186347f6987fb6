"""How numbers, errors and names are put into words: durations, sizes, an error's first line, the closest known name."""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

_UNITS = (86_400, 3600, 60, 1)  # seconds of a day, an hour, a minute and a second
ASCII_SIGNS = {"±": "+-", "²": "^2", "·": "*", "…": "...", "✓": "+", "✗": "x"}


def clock_text(seconds: float) -> str:
    """A duration that is counted down or up beside others: 4:07."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def duration_text(seconds: float) -> str:
    """The time that something takes, as exact as matters: 4.2 s, 87 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return _two(whole, 60, "min", "s")
    return _two(round(whole / 60), 60, "h", "min")


def seconds_of(duration: str) -> float:
    """What a person writes for a time: 4h, 90m, 1h30m, 45s, 2d, or a number of seconds."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text := duration.replace(" ", ""))
    if text and found is not None:
        return float(sum(int(part or 0) * each for part, each in zip(found.groups(), _UNITS, strict=True)))
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{duration!r} is no time: write 4h, 90m, 1h30m, or seconds") from None


def _two(whole: int, each: int, unit: str, smaller: str) -> str:
    large, rest = divmod(whole, each)
    return f"{large} {unit} {rest} {smaller}" if rest else f"{large} {unit}"


def size_text(number: float) -> str:
    """Bytes in the unit that suits them: 512 B, 1.5 KiB, 2.0 GiB."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if number >= 1 << 10 * power:
            return f"{number / (1 << 10 * power):,.1f} {unit}"
    return f"{number:.0f} B"


def python_command() -> str:
    """How a person calls this Python: by its path from here, unless it is the one that `python` is."""
    mine, here = Path(sys.executable), Path.cwd()
    found = shutil.which("python")
    if found is not None and Path(found) == mine:
        return "python"
    return shlex.quote(str(mine.relative_to(here) if mine.is_relative_to(here) else mine))


def first_line(error: Exception) -> str:
    """The first line of what a library says, which often goes on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """How a sign is written where the terminal's encoding has none for it: ± as +-, a bar of blocks as #."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(ASCII_SIGNS.get(sign, "#" if "\u2580" <= sign <= "\u259f" else "?") for sign in text), error.end


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known name that an unknown one nearly is, or the two that come closest; all of them where none does."""
    return what_was_meant(name, known) or f"known: {', '.join(known)}"


def what_was_meant(name: str, known: Collection[str]) -> str:
    """A question for the known name that comes close to an unknown one; nothing where none does."""
    words = sorted(name.split("_"))
    close = [one for one in known if sorted(one.split("_")) == words]  # in another order
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    close = close or difflib.get_close_matches(name, known, n=2)
    return f"did you mean {' or '.join(close)}?" if close else ""


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines; the first row is its head, and columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
