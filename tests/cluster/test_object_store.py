"""Everything of a run in an object store, as clusters without a shared disk have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mixdpo_ray import storage
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cluster


def train(folder: Path, *overrides: str) -> str:
    command = [sys.executable, "jobs/train.py", str(folder / "recipe.yaml"), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_in_a_bucket_continues_with_another_number_of_workers(tmp_path: Path, bucket: str) -> None:
    write_tiny_model(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", 420)
    (tmp_path / "recipe.yaml").write_text(
        f"""
model: {{path: {tmp_path}/model, dtype: float32}}
data: {{source: {{path: {tmp_path}/pairs.jsonl}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 16, checkpoints: {{every_steps: 2}}}}
cluster: {{use_gpu: false}}
output: {{storage_path: {bucket}, name: run}}
"""
    )
    train(tmp_path, "train.max_steps=4", "cluster.num_workers=2")
    said = train(tmp_path, "train.max_steps=8", "cluster.num_workers=1")
    run = f"{bucket}/runs/run"
    assert f"{run} finished" in said
    lines = [json.loads(line) for line in storage.read_bytes(f"{run}/metrics.jsonl").decode().splitlines()]
    assert [line["step"] for line in lines if line.get("kind") != "eval"] == list(range(8))
    assert storage.exists(f"{run}/model/model.safetensors")
    assert storage.names(f"{run}/checkpoints") == ["step-6", "step-8"]
