"""The memory of packed rows, as far as a recipe and its table tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.preparation.prepare import prepared_table
from tests.doctor.examinations import changed, findings, red, sound

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return sound(tmp_path)


def test_packed_rows_need_less_memory_and_the_tables_own_longest_pair_decides(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    def pair(**changes: Any) -> int | None:
        return Examination(changed(tree, **changes), tmp_path).packed_pair

    assert pair(model__packing=False) is None
    assert pair(model__packing="auto") == 16 + 48 + 48, "a full prompt and the answers that fit behind it"
    recipe = changed(tree, model__packing="auto")
    index = prepared_table(recipe).index("train")
    assert Examination(recipe, tmp_path).packed_pair == max(
        map(sum, zip(index.prompt_length, index.chosen_length, index.rejected_length, strict=True))
    )
    packed, padded = (findings(changed(tree, model__packing=on), tmp_path)["memory"].text for on in ("auto", False))
    assert packed != padded


def test_passes_counted_in_tokens_are_said_as_such(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed(tree, train__per_device_train_batch_size={"tokens": 4096}, model__packing="auto")
    found = findings(recipe, tmp_path)
    assert found["batch"].text == "8 pairs a step, of 2 workers in passes of up to 4,096 tokens"
    assert found["memory"].state == "green"
    recipe = changed(recipe.to_dict(), model__attn_implementation="eager")
    assert red(recipe, tmp_path, "memory") == (
        "train.per_device_train_batch_size counts tokens, and rows are padded, for its attention is eager and not "
        "sdpa: give a number of pairs"
    )


def test_workers_that_share_rows_are_told_as_such_and_refused_where_heads_do_not_divide(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    alone, shared = (
        findings(changed(tree, deepspeed__sequence_parallel=n, model__packing="auto"), tmp_path) for n in (1, 2)
    )
    assert shared["batch"].text == "8 pairs a step = 1 x 2 workers that share rows x 2 micro-steps x 4 pairs"
    assert shared["memory"].state == "green"
    assert shared["memory"].text != alone["memory"].text
    three = changed(tree, deepspeed__sequence_parallel=3, cluster__num_workers=3, model__packing="auto")
    assert red(three, tmp_path, "memory").startswith("deepspeed.sequence_parallel 3: it has ")
