"""The most memory that a process takes for a model that is only run, by the kernel's account."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.model_loading import InShards, Whole
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.world import World
from tests.training.memory_peaks import full_batch

MMAP_THRESHOLD = -3  # of mallopt: fixed, so that what is freed goes back to the kernel at once


def scoring_peak(world: World, folder: str, dtype: str, pairs: int, length: int, in_shards: bool) -> int:
    """Weights, which were loaded before, and what three passes take besides; the first knows not what comes next.

    The profiler would not do: threads of gloo free what it has seen begin.
    """
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 16)
    batch, loading = full_batch(pairs, length), InShards(world) if in_shards else Whole()
    model = ModelSettings.model_validate({"path": folder, "dtype": dtype, "packing": False})
    scorer = loading.load(lambda: Scorer(load_model(model)), model.dtype)
    with torch.inference_mode():
        pair_logps(scorer, full_batch(1, 8))  # what libraries take once
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        for _ in range(3):
            pair_logps(scorer, batch)
    held = [getattr(parameter, "ds_tensor", parameter) for parameter in scorer.parameters()]
    return _status("VmHWM") - before + sum(part.numel() * part.element_size() for part in held)


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
