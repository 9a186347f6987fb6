"""Pairs longer than a model's positions: told before they are trained, and refused where training would end by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.training.positions import TooLong, too_long_for_model
from mixdpo_ray.training.settings import ModelSettings

LLAMA = {"model_type": "llama", "max_position_embeddings": 64}
GPT2 = {"model_type": "gpt2", "n_positions": 64}


def found(folder: Path, config: dict[str, Any], max_length: int, max_prompt_length: int = 16) -> TooLong | None:
    (folder / "config.json").write_text(json.dumps(config))
    return too_long_for_model(ModelSettings(path=str(folder)), max_length, max_prompt_length)


@pytest.mark.parametrize("config", [LLAMA, GPT2, {"model_type": "llava", "text_config": LLAMA}, {}])
def test_pairs_that_a_model_has_positions_for_are_not_spoken_of(tmp_path: Path, config: dict[str, Any]) -> None:
    assert found(tmp_path, config, 64) is None


def test_a_table_of_positions_ends_training_where_rotary_ones_go_on(tmp_path: Path) -> None:
    rotary, table = found(tmp_path, LLAMA, 128), found(tmp_path, GPT2, 128)
    assert rotary == TooLong(
        f"data.max_length 128 is more than the 64 tokens that {tmp_path} was made for: lower it to 64, or choose a "
        "model of longer texts",
        ends_training=False,
    )
    assert table is not None
    assert table.ends_training
    assert f"the 64 tokens that {tmp_path} has positions for" in table.text


def test_a_prompt_that_alone_fills_the_positions_is_lowered_too(tmp_path: Path) -> None:
    told = found(tmp_path, LLAMA, 128, max_prompt_length=100)
    assert told is not None
    assert "lower it to 64 and data.max_prompt_length, now 100, below it, or" in told.text
