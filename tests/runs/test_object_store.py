"""Everything of a run in an object store, as clusters without a shared disk have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray import storage
from tests.runs.trainings import job, write_world

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]
SETTINGS = """
train: {global_batch_size: 16, checkpoints: {every_steps: 2}}
cluster: {reference_workers: 1, use_gpu: false}
"""


def train(folder: Path, bucket: str, *overrides: str) -> str:
    recipe = str(folder / "recipe.yaml")
    status, out, err = job("train", recipe, f"output.storage_path={bucket}", "output.name=run", *overrides)
    assert status == 0, err
    return out


def test_a_run_in_a_bucket_continues_with_another_number_of_workers(tmp_path: Path, bucket: str) -> None:
    folder = write_world(tmp_path, SETTINGS, pairs=150)
    train(folder, bucket, "train.max_steps=4", "cluster.num_workers=2")
    said = train(folder, bucket, "train.max_steps=8", "cluster.num_workers=1")
    run = f"{bucket}/runs/run"
    assert f"{run} finished" in said
    lines = [json.loads(line) for line in storage.read_bytes(f"{run}/metrics.jsonl").decode().splitlines()]
    assert [line["step"] for line in lines if line.get("kind") != "eval"] == list(range(8))
    assert storage.exists(f"{run}/model/model.safetensors")
    assert storage.names(f"{run}/checkpoints") == ["step-6", "step-8"]
