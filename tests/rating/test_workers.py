"""What a worker computes of a batch, whatever its size and however much memory there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.rating.workers import LogpWorker
from mixdpo_ray.training.model_loading import Whole
from mixdpo_ray.training.settings import ModelSettings

ANSWERS = {"a": [[3, 4, 5], [6, 7]], "b": [[3, 4], [8, 9, 10, 2]], "c": [[3, 4, 5, 6, 7], [2]], "d": [[5], [6, 6]]}


def test_log_probs_do_not_depend_on_the_batch_and_a_batch_without_memory_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path)
    settings = ModelSettings(path=str(tmp_path), dtype="float32", packing=False)
    worker = LogpWorker(settings, "here", 1, Whole())
    alone = [worker({"answers": [json.dumps([row])]})["number"][0].as_py() for row in ANSWERS.items()]
    sizes: list[int] = []
    whole = worker._logps

    def little_memory(tokens: Any) -> Any:
        sizes.append(len(tokens))
        if len(tokens) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return whole(tokens)

    monkeypatch.setattr(worker, "_logps", little_memory)
    rows = worker({"answers": [json.dumps(list(ANSWERS.items()))]})
    assert rows["pair_id"].to_pylist() == list(ANSWERS)
    assert rows["number"].to_pylist() == pytest.approx(alone, abs=1e-5)
    assert sizes == [4, 2, 2]
