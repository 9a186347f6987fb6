"""A scratch folder that goes away, and only where the disk has room for what will be written."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(parent: Path | None, needed_gib: float, keep_gib: float) -> Iterator[Path]:
    """A folder under `parent` (the system's place for temporary files where none is given), removed in any case."""
    place = parent or Path(tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free / 2**30
    if free < needed_gib + keep_gib:
        sys.exit(
            f"{place}: {free:.0f} GiB are free; this takes about {needed_gib:.0f} and leaves {keep_gib:.0f} "
            "to others (--keep-gib): measure fewer pairs, or give another --scratch"
        )
    with tempfile.TemporaryDirectory(dir=place, prefix="mixdpo-scale-") as folder:
        yield Path(folder)


def load() -> str:
    """What else the machine was doing: a figure without it says little."""
    one, five, _ = os.getloadavg()
    return f"{one:.1f} (1 min), {five:.1f} (5 min) on {os.cpu_count()} cores"
