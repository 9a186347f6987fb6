"""Seconds of things that a device does: by its own events on a GPU, by the clock elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def seconds_of(things: Sequence[Callable[[], object]], device: str) -> list[float]:
    """One after the other, with no wait in between: a GPU's queue stays filled as in training."""
    if torch.device(device).type != "cuda":
        return [_by_clock(thing) for thing in things]
    event: Any = torch.cuda.Event
    marks = [tuple(event(enable_timing=True) for _ in range(2)) for _ in things]
    for thing, (before, after) in zip(things, marks, strict=True):
        before.record()
        thing()
        after.record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1000 for before, after in marks]


def _by_clock(thing: Callable[[], object]) -> float:
    began = time.perf_counter()
    thing()
    return time.perf_counter() - began
