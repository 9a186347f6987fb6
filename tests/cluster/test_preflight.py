"""What every job refuses before anything is loaded, and the arithmetic of places for workers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.cluster.connect import missing_resources, room_on_nodes
from mixdpo_ray.cluster.node_labels import gpu_node_options, offered, selected
from mixdpo_ray.cluster.preflight import does_not_fit, lacking, preflight
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import CheckFailed
from mixdpo_ray.doctor.size_checks import memory
from mixdpo_ray.errors import ResourceError, StorageError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.memory_estimate import ModelShape
from tests.doctor.examinations import changed, sound

GPU_NODE = {"CPU": 16.0, "GPU": 4.0}
WORKER = {"CPU": 4.0, "GPU": 1.0}
LLAMA_8B = ModelShape(8_030_261_248, 8_030_261_248, 2, 32, 4096, 14336, 4096, 1024, 128_256)


def settings(**changes: Any) -> ClusterSettings:
    return ClusterSettings.model_validate({"num_workers": 8, "cpus_per_worker": 4, **changes})


def test_a_node_has_room_for_as_many_workers_as_its_scarcest_resource_allows() -> None:
    assert room_on_nodes([{"CPU": 16.0}, GPU_NODE, {"CPU": 6.0, "GPU": 8.0}], WORKER) == [0, 4, 1]
    assert room_on_nodes([{"CPU": 2.0}], {"CPU": 0.1}) == [20]


def test_enough_in_all_is_not_enough_where_no_worker_can_be_spread_over_two_nodes() -> None:
    room = room_on_nodes([{"CPU": 6.0}] * 3, {"CPU": 4.0})
    said = does_not_fit(settings(num_workers=4), "4 CPU", ["a", "b", "c"], room)
    assert said is not None
    assert said.startswith(
        "4 workers of 4 CPU do not fit, since none can be spread over two nodes: room for a 1, b 1, c 1"
    )


@pytest.mark.parametrize(("strategy", "fits"), [("PACK", True), ("STRICT_PACK", False), ("STRICT_SPREAD", False)])
def test_strict_strategies_need_their_nodes(strategy: str, fits: bool) -> None:
    said = does_not_fit(settings(placement_strategy=strategy), "4 CPU + 1 GPU", ["a", "b"], [4, 4])
    assert (said is None) == fits
    assert fits or f"cluster.placement_strategy {strategy} wants 8" in str(said)


def test_workers_and_their_reading_both_need_cpus() -> None:
    """8 workers of 4 CPUs and 8 CPUs to read through: 40."""
    assert lacking(settings(), WORKER, {"CPU": 39.0, "GPU": 8.0})
    assert not lacking(settings(), WORKER, {"CPU": 40.0, "GPU": 8.0})
    assert lacking(settings(), WORKER, {"CPU": 40.0, "GPU": 7.0})


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({}, ["eu", "us", "plain"]),
        ({"region": "eu"}, ["eu"]),
        ({"region": "!eu"}, ["us", "plain"]),
        ({"region": "in(eu, us)"}, ["eu", "us"]),
        ({"region": "!in(eu,us)"}, ["plain"]),
        ({"region": "in(eu, us)", "market": "!spot"}, ["us"]),
        ({"market": "spot", "region": "us"}, []),
    ],
)
def test_nodes_are_selected_by_their_labels_as_ray_does(selector: dict[str, str], found: list[str]) -> None:
    nodes = {"eu": {"region": "eu", "market": "spot"}, "us": {"region": "us"}, "plain": {}}
    assert [name for name, labels in nodes.items() if selected(labels, selector)] == found
    rooms = room_on_nodes(
        [offered(settings(label_selector=selector), GPU_NODE, labels) for labels in nodes.values()], WORKER
    )
    assert rooms == [4 if name in found else 0 for name in nodes]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_labels_and_kinds_that_no_node_has_are_named() -> None:
    assert missing_resources(settings(num_workers=1, cpus_per_worker=1, label_selector={"region": "eu"})) == (
        "CPU on nodes with region=eu (cluster.label_selector) (have 0, need 1)"
    )
    assert missing_resources(settings(num_workers=1, cpus_per_worker=1, label_selector={"region": "!eu"})) == ""
    kind = missing_resources(settings(num_workers=1, cpus_per_worker=1, accelerator_type="A100"))
    assert kind.endswith("a GPU of kind A100 (cluster.accelerator_type; no node names a kind)")


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return sound(tmp_path)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_sound_recipe_passes_and_nothing_is_written(tree: dict[str, Any], tmp_path: Path) -> None:
    preflight(changed(tree))
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_storage_that_cannot_be_written_stops_every_job(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^output.storage_path cannot be used: .*Not a directory"):
        preflight(changed(tree, output__storage_path=str(tmp_path / "file")), trains=False)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_gpus_that_this_machine_will_never_have_stop_training_and_not_preparing(tree: dict[str, Any]) -> None:
    recipe = changed(tree, cluster__use_gpu=True)
    preflight(recipe, trains=False)
    with pytest.raises(
        ResourceError, match=r"^this machine lacks GPU \(have 0, need 2\): .* set cluster.use_gpu=false"
    ):
        preflight(recipe)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_memory_is_held_against_what_the_gpus_have(tree: dict[str, Any], tmp_path: Path) -> None:
    """An 8B model on GPUs as nodes with 24, 80 and 140 GiB would report them."""

    def said(free_gib: int, workers: int, **changes: Any) -> str:
        recipe = changed(tree, cluster__use_gpu=True, cluster__num_workers=workers, data__max_length=1024, **changes)
        patient = Examination(recipe, tmp_path)
        (node,) = Examination(changed(tree), tmp_path).nodes
        answer = replace(node.answer, gpu_memory=((free_gib << 30, 140 << 30),) * 4, free_memory=1 << 40)
        patient.__dict__["nodes"] = [replace(node, resources=GPU_NODE, answer=answer)]
        patient.__dict__["shape"] = LLAMA_8B
        return str(memory(patient))

    assert " of the 140.0 GiB free on a GPU; 4 of them need 62.8 GiB of the 1.0 TiB free in host" in said(140, 8)
    many = {"train__global_batch_size": 2048, "train__per_device_train_batch_size": 1}
    longer = (
        r" \('train.per_device_train_batch_size=\{tokens: 8192\}' train.logp_chunk_tokens=8192 would need 8\d\.\d GiB"
    )
    assert re.search(longer, said(140, 8, **many))
    assert "busier" not in said(140, 8, **many, model__packing=False)
    assert "busier" not in said(140, 8, **many | {"train__global_batch_size": 16}), "a worker has two pairs in a step"
    assert "busier" not in said(140, 8, **many | {"train__per_device_train_batch_size": 4}), "8,128 tokens are as long"
    with pytest.raises(
        CheckFailed, match=r"a GPU has 80.0 GiB free: train.gradient_checkpointing=true would need \d\d\.\d GiB"
    ):
        said(80, 8, train__per_device_train_batch_size=8)
    with pytest.raises(CheckFailed, match=r"deepspeed.zero_stage=3 deepspeed.offload_optimizer=true .*would need"):
        said(24, 2)
    with pytest.raises(CheckFailed, match="even with the leanest settings it would not fit"):
        said(3, 2)


def test_whoever_takes_a_gpu_asks_for_the_nodes_of_the_recipe() -> None:
    settings = ClusterSettings.model_validate({"label_selector": {"region": "!eu"}, "accelerator_type": "H100"})
    assert gpu_node_options(settings) == {"label_selector": {"region": "!eu"}, "accelerator_type": "H100"}
    assert gpu_node_options(ClusterSettings()) == {}
