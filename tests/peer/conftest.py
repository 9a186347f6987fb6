"""A process for TRL."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest


@pytest.fixture(scope="session")
def trl_process() -> Iterator[ProcessPoolExecutor]:
    """In ours, accelerate would take up the process group that our engine makes. One, as its imports take seconds."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool
