"""Processes that end when they should: with whoever started them, or with all that they started themselves."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
import torch

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def start(device: str, function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Forked on a CPU, so that nothing is imported twice; a process that asked for CUDA cannot be forked."""
    context: Any = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    process: BaseProcess = context.Process(target=_run, args=(device, function, arguments))
    process.start()
    return process


def _run(device: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if device == "cpu":
        torch.set_num_threads(1)  # several processes on few cores take many times as long with more
    function(*arguments)


def end(process: BaseProcess) -> None:
    """Kill it and everything below it: Ray's processes, a compiler, training processes."""
    if process.is_alive():
        first = psutil.Process(process.pid)
        for member in [first, *first.children(recursive=True)]:
            if member.is_running():
                member.kill()
    process.join()
