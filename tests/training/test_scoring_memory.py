"""The memory of a model that is only run: held against what processes really take, whole and in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.training.memory_estimate import CPU_RUNTIME
from mixdpo_ray.training.scoring_memory import ScoredShape
from mixdpo_ray.training.settings import ModelSettings
from tests.training.gang import Gang
from tests.training.scoring_peaks import scoring_peak

LAYERS: dict[str, Any] = {
    "vocab_size": 2000,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}  # 26 million weights
PAIRS, LENGTH = 2, 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    LlamaForCausalLM(LlamaConfig(**LAYERS)).save_pretrained(folder)
    return folder


def estimate(model: Path, dtype: str, shards: int | None) -> int:
    shape = ScoredShape.read(ModelSettings.model_validate({"path": str(model), "dtype": dtype}), "AutoModelForCausalLM")
    tokens = 2 * PAIRS * LENGTH
    return shape.for_worker(tokens, tokens // 2, shards, gpu=False).device_bytes - CPU_RUNTIME


def test_the_estimate_is_within_15_percent_of_the_peak_and_falls_with_the_ranks(model: Path) -> None:
    """In processes of their own: what others have let go of would be taken again, and nothing seem to be needed."""
    peaks = {}
    for shards in (None, 2):
        gang = Gang(shards or 1)
        found = gang(scoring_peak, str(model), "float32", PAIRS, LENGTH, shards is not None)
        gang.close()
        peaks[shards] = max(found)
        assert estimate(model, "float32", shards) == pytest.approx(peaks[shards], rel=0.15), (shards, found)
    assert peaks[2] < peaks[None]
