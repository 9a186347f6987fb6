"""One training after another in the same process: what one changes there is put back, so the next is as if alone.

The generators need nothing: a training seeds them before it draws. Memory is free again afterwards, too, which takes
more than to forget the model: an engine refers to itself, and its library to models that are done.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional

from mixdpo_ray.training.world import World

_PEAK = Path("/proc/self/clear_refs")  # where the kernel forgets the most memory that a process has had


@contextmanager
def isolated(world: World) -> Iterator[None]:
    environment, dtype, threads = dict(os.environ), torch.get_default_dtype(), torch.get_num_threads()
    disabled, linear = logging.root.manager.disable, functional.linear
    _forget_peak_memory(world)
    try:
        yield
    finally:
        _put_back(environment)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        logging.disable(disabled)
        functional.linear = linear  # ZeRO-3 leaves one of its own, with gradients that differ in the last bits
        _forget_models()
        gc.collect()
        if world.torch_device.type == "cuda":
            torch.cuda.empty_cache()


def _put_back(environment: Mapping[str, str]) -> None:
    """Only what changed: other threads read it."""
    for name in os.environ.keys() | environment:
        if name not in environment:
            del os.environ[name]
        elif os.environ.get(name) != environment[name]:
            os.environ[name] = environment[name]


def _forget_peak_memory(world: World) -> None:
    """Each training tells its own peak (loop.py)."""
    if world.torch_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.torch_device)
    elif os.access(_PEAK, os.W_OK):
        _PEAK.write_text("5")


def _forget_models() -> None:
    """Every model that ZeRO-3 has sharded stays on a stack, and in the cache of a method."""
    if offload := sys.modules.get("deepspeed.runtime.zero.parameter_offload"):
        offload.FWD_MODULE_STACK.clear()
        method = offload.PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
        inspect.getclosurevars(method).nonlocals["func"].cache_clear()
