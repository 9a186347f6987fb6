"""A recipe beside a tiny model and pairs of a playground, for what a model answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model


def write_answers_recipe(folder: Path, pairs: int, heldout: float, answers: Mapping[str, Any]) -> None:
    """recipe.yaml with this section of answers, and its model and pairs."""
    write_tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl", pairs)
    data = {"source": {"path": f"{folder}/pairs.jsonl"}, "heldout": {"fraction": heldout}}
    recipe = {
        "model": {"path": f"{folder}/model", "dtype": "float32"},
        "data": {**data, "max_prompt_length": 16, "max_length": 64},
        "train": {"global_batch_size": 8},
        "cluster": {"num_workers": 1, "use_gpu": False},
        "answers": answers,
        "output": {"storage_path": f"{folder}/out"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
