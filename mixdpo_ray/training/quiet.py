"""Silence for libraries that speak of what nobody can act on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path


@contextmanager
def quiet(level: int = logging.INFO) -> Iterator[None]:
    """Keep away what is told by loggers and by print: people want what they can act on."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(before)
