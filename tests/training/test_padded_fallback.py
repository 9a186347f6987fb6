"""Where a model cannot have packed rows: what a person is told of it, and what still trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import ModelError
from tests.training.gang import Gang
from tests.training.test_checkpoints import train_and_listen
from tests.training.test_loop import steps, train
from tests.training.tiny import make_job

EAGER: dict[str, Any] = {"attn_implementation": "eager"}


def test_padded_rows_are_said_once_by_the_leader_and_train_as_ever(tiny: Path, two: Gang, tmp_path: Path) -> None:
    told = two(train_and_listen, make_job(tiny, tmp_path, model=EAGER, max_steps=1))
    assert [listener.texts for listener in told] == [
        [
            "rows are padded, which takes longer, for its attention is eager and not sdpa; model.packing off leaves "
            "this line out"
        ],
        [],
    ]
    assert steps(tmp_path)[0]["perf/padding_fraction"] > 0 == steps(tmp_path)[0]["perf/shared_fraction"]


def test_who_wants_padded_rows_is_told_nothing(tiny: Path, two: Gang, tmp_path: Path) -> None:
    told = two(train_and_listen, make_job(tiny, tmp_path, model={**EAGER, "packing": False}, max_steps=1))
    assert [listener.texts for listener in told] == [[], []]


def test_a_budget_of_tokens_is_refused_where_rows_are_padded(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, model=EAGER, per_device_train_batch_size={"tokens": 40})
    with pytest.raises(ModelError, match="counts tokens, and rows are padded, for its attention is eager and not sdpa"):
        two(train, job)
