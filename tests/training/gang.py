"""Worker processes that stay: a group of gloo workers is started once and asked to run many functions.

They are forked from a server that has imported what is slow to import, once for all groups. They live on a bare
machine: no compiler, and the lock of a process that was killed while DeepSpeed compiled.
"""

from __future__ import annotations

import os
import socket
import tempfile
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch.multiprocessing as multiprocessing

from mixdpo_ray.training.isolation import isolated
from mixdpo_ray.training.world import World

EXTENSION = "deepspeed_shm_comm"  # what DeepSpeed compiles on CPU if it is let
SLOW = ["tests.training.slow_imports"]


class Gang:
    """`gang(function, *arguments)` runs function(world, *arguments) on every rank and gives their results in order."""

    PATIENCE = 30.0  # seconds that the others get to notice that one has failed

    def __init__(self, size: int):
        self.size = size
        self._machine = tempfile.TemporaryDirectory()
        self.extensions = Path(self._machine.name) / "extensions"
        (self.extensions / EXTENSION).mkdir(parents=True)
        (self.extensions / EXTENSION / "lock").touch()
        self._start()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, arguments))
        answers: dict[Connection, Any] = {}
        failed = False
        while waiting := [pipe for pipe in self.pipes if pipe not in answers]:
            ready = wait(waiting, self.PATIENCE if failed else None)
            if not ready:
                self._start_again()
                break
            for pipe in (pipe for pipe in waiting if pipe in ready):
                answers[pipe] = pipe.recv()
                failed = failed or answers[pipe][0] == "error"
        for kind, content, trace in answers.values():
            if kind == "error":
                raise content from RuntimeError(trace)
        return [answers[pipe][1] for pipe in self.pipes]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
        self._machine.cleanup()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SLOW)
        bare = {"PATH": self._machine.name, "TORCH_EXTENSIONS_DIR": str(self.extensions)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.pipes, self.processes = [], []
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            world = World(rank, self.size, rank)
            process = context.Process(target=_serve, args=(world, port, theirs, bare), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def _start_again(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self._start()


def _serve(world: World, port: int, pipe: Connection, machine: dict[str, str]) -> None:
    import torch
    import torch.distributed as dist

    warnings.simplefilter("ignore")  # of libraries; the tests' own process has none
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(world.rank), OMP_NUM_THREADS="1", **machine)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=world.rank, world_size=world.size)
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            with isolated(world):  # as in a standing group, so that no test finds what another one left
                result = function(world, *arguments)
            pipe.send(("result", result, ""))
        except Exception as error:  # noqa: BLE001 the test's process raises it again
            pipe.send(("error", error, traceback.format_exc()))
    dist.destroy_process_group()
