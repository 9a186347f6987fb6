"""A model that only scores lies whole with each worker where a copy fits, and otherwise in shards; it says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from mixdpo_ray.cluster.nodes import Node, NodeAnswer
from mixdpo_ray.cluster.scoring_way import ScoredModel, way_of_scoring
from mixdpo_ray.errors import RecipeError, ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.settings import ModelSettings

GIB = 2**30
SIZES = {"8b": (4096, 14336, 32), "70b": (8192, 28672, 80)}


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configurations")
    for name, (hidden, intermediate, layers) in SIZES.items():
        LlamaConfig(
            vocab_size=128_256, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=hidden // 128, num_key_value_heads=8,
        ).save_pretrained(folder / name)  # fmt: skip
    return folder


def test_a_base_in_4_bits_lies_whole(configurations: Path) -> None:
    assert not way(configurations / "70b", lora={"quantize": True})[0]
    with pytest.raises(RecipeError, match=r"cluster.scoring=sharded cannot share a base in 4 bits"):
        way(configurations / "70b", lora={"quantize": True}, scoring="sharded")


def way(
    path: Path, *, gpu: bool = True, memory: float = 79, offload: bool = False, lora: Any = None, **cluster: Any
) -> tuple[bool, str]:
    """Whether it is in shards, and what is said, where each GPU or the host has so many GiB free."""
    model = ModelSettings.model_validate({"path": str(path), "lora": lora})
    scored = ScoredModel(model, "AutoModelForCausalLM", 16_384, 4096, False, offload, "/tmp")
    free = int(memory * GIB)
    answer = NodeAnswer({}, None, "", (), (), None, free, ((free, free),) * 8 if gpu else ())
    node = Node("here", {"CPU": 16, **({"GPU": 8} if gpu else {})}, answer)
    settings = ClusterSettings.model_validate({"num_workers": 8, "use_gpu": gpu, **cluster})
    found = way_of_scoring(scored, settings, gpu=gpu, nodes=[node])
    return found.sharded, found.text


def test_a_copy_that_fits_a_gpu_lies_there_and_one_that_does_not_is_shared(configurations: Path) -> None:
    """8.03 and 70.6 billion weights in bfloat16 are 15 and 131 GiB; an eighth of those 16.4, and a few layers."""
    sharded, text = way(configurations / "8b")
    assert not sharded
    assert text.startswith("a whole copy each of 1")
    sharded, text = way(configurations / "70b")
    assert sharded
    assert "8 workers that share it in shards" in text
    assert "a copy needs 13" in text
    assert "a GPU has 79.0 GiB free" in text


@pytest.mark.parametrize("scoring", ["whole", "sharded"])
def test_the_setting_decides_and_is_named(configurations: Path, scoring: str) -> None:
    sharded, text = way(configurations / "8b", scoring=scoring)
    assert sharded == (scoring == "sharded")
    assert f"cluster.scoring={scoring}" in text


def test_where_even_shards_do_not_fit_the_ways_out_are_named(configurations: Path) -> None:
    with pytest.raises(ResourceError, match=r"whole and .* raise cluster.num_workers, set deepspeed.offload_param"):
        way(configurations / "70b", num_workers=1)
    assert way(configurations / "70b", num_workers=1, offload=True)[0]


def test_on_cpus_what_the_host_has_for_each_copy_decides(configurations: Path) -> None:
    assert not way(configurations / "8b", gpu=False, memory=400)[0]
    assert way(configurations / "8b", gpu=False, memory=100)[0]
    assert not way(configurations / "8b", gpu=False, memory=1, num_workers=1)[0]
