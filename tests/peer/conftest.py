"""A process for TRL, and calls of its losses there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.peer.tiny import save_model

Trl = Callable[..., Any]


@pytest.fixture(scope="session")
def trl_process() -> Iterator[ProcessPoolExecutor]:
    """In ours, accelerate would take up the process group that our engine makes. One, as its imports take seconds."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formulas")
    save_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def trl(folder: Path, trl_process: ProcessPoolExecutor) -> Trl:
    """Calls one of trl_losses by its name, there."""
    return lambda function, *given, **named: trl_process.submit(_call, function, folder, *given, **named).result()


def _call(function: str, *given: Any, **named: Any) -> Any:
    from tests.peer import trl_losses

    return getattr(trl_losses, function)(*given, **named)
