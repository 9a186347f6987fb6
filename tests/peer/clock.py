"""Time and memory of a device: kernels are launched, not awaited, so a clock must wait for them first."""

from __future__ import annotations

import resource
import time

import torch


def now(device: str) -> float:
    """Seconds, once the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_mib(device: str) -> float:
    """The most that tensors ever took on a GPU; the most that this process ever took where there is none."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
