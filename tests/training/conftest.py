"""Shared by the tests of training: one tiny world, and worker processes that are started once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # spawned workers import the functions that they are sent

from tests.training.gang import Gang
from tests.training.tiny import make_world


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def one() -> Iterator[Gang]:
    gang = Gang(1)
    yield gang
    gang.close()


@pytest.fixture(scope="session")
def four() -> Iterator[Gang]:
    gang = Gang(4)
    yield gang
    gang.close()


@pytest.fixture(scope="session")
def two() -> Iterator[Gang]:
    gang = Gang(2)
    yield gang
    gang.close()
