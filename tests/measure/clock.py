"""Time on a device: kernels are launched, not awaited, so a clock must wait for them first."""

from __future__ import annotations

import time

import torch


def now(device: str) -> float:
    """Seconds, once the device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
