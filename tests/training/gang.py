"""Worker processes that stay: a group of gloo workers is started once and asked to run many functions.

They are forked from a server that has imported what is slow to import, once for all groups.
"""

from __future__ import annotations

import os
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch.multiprocessing as multiprocessing

from mixdpo_ray.training.world import World

SLOW = ["mixdpo_ray.training.loop", "tests.training.slow_imports"]


class Gang:
    """`gang(function, *arguments)` runs function(world, *arguments) on every rank and gives their results in order."""

    def __init__(self, size: int):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SLOW)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(World(rank, size, rank), port, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, arguments))
        results = [pipe.recv() for pipe in self.pipes]
        for kind, content, trace in results:
            if kind == "error":
                raise content from RuntimeError(trace)
        return [content for _, content, _ in results]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)


def _serve(world: World, port: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(world.rank), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=world.rank, world_size=world.size
    )
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            pipe.send(("result", function(world, *arguments), ""))
        except Exception as error:  # noqa: BLE001 the test's process raises it again
            pipe.send(("error", error, traceback.format_exc()))
    dist.destroy_process_group()
