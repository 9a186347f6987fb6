"""The most bytes that tensors of one worker ever take while it only runs a model, by the allocator's own account."""

from __future__ import annotations

from typing import Any

import torch

from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.model_loading import InShards, Whole
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.world import World
from tests.training.memory_peaks import full_batch, peak_of


def scoring_peak(world: World, folder: str, dtype: str, pairs: int, length: int, chunks: int, in_shards: bool) -> int:
    """Three passes, the first of which knows not what comes next."""
    from torch.profiler import ProfilerActivity, profile

    batch, loading = full_batch(pairs, length), InShards(world) if in_shards else Whole()
    model: Any = ModelSettings.model_validate({"path": folder, "dtype": dtype, "packing": False})
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        scorer = loading.load(lambda: Scorer(load_model(model)))
        with torch.inference_mode():
            for _ in range(3):
                pair_logps(scorer, batch, chunks)
    return peak_of(profiler)
