"""The workers of a Ray of this machine alone are forked from a process that has imported what takes seconds.

Ray starts two interpreters for each of its workers, and each imports torch, transformers and the engine for itself: 7
CPU seconds for one that trains, of which 2 are left. Ray itself is not imported before the fork: its random numbers
would be the same in every worker, and so would the names that it makes of them. Where there are GPUs, Ray starts
workers its own way, because CUDA does not survive a fork; and on clusters, where nodes are not ours to start.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixdpo_ray.cluster import fork_client

DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and either under WSL
START = "import sys; sys.path[:] = {path!r}; from mixdpo_ray.cluster.fork_server import serve; serve({listener})"


@contextmanager
def fork_server() -> Iterator[str | None]:
    """The script that starts a worker, instead of Ray's own; None where workers cannot be forked."""
    if sys.platform != "linux" or any(Path(device).exists() for device in DEVICES):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mixdpo-fork-") as folder:  # only this person may enter it
        path = str(Path(folder) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(128)
            command = [sys.executable, "-c", START.format(path=sys.path, listener=listener.fileno())]
            server = subprocess.Popen(
                command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=[listener.fileno()]
            )
        from mixdpo_ray.cluster.ray_internals import setup_worker_script  # it imports Ray, which the server must not

        told = {fork_client.SOCKET: path, fork_client.SCRIPT: setup_worker_script()}
        os.environ.update(told)
        try:
            yield fork_client.__file__
        finally:
            for name in told:
                del os.environ[name]
            server.kill()  # perhaps it imports still; its workers are Ray's affair
            server.communicate()


def serve(listener: int) -> None:
    """Fork a worker for each client, until the driver has gone: with it ends this process's input."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray sets it for its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    clients = socket.socket(fileno=listener)
    from mixdpo_ray.training.engine import import_what_is_slow

    import_what_is_slow()
    gc.freeze()
    while True:
        ready, _, _ = select.select([clients, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        client, _ = clients.accept()
        if os.fork() == 0:
            clients.close()
            _become_worker(client)
        client.close()


def _become_worker(client: socket.socket) -> None:
    """The client waits until this process closes its end, by dying."""
    os.setpgid(0, 0)  # Ray ends a worker's process group with it
    request, files = fork_client.receive(client)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    Path("/proc/self/oom_score_adj").write_text(request["oom_score"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    sys.modules["numpy"].random.seed()  # the others were forked with the same state
    worker, *arguments = request["worker"]
    sys.argv, sys.path[:0] = [worker, *arguments], [str(Path(worker).parent)]
    from mixdpo_ray.cluster.ray_internals import set_environment

    set_environment(json.loads(request["context"]).get("env_vars") or {})
    runpy.run_path(worker, run_name="__main__")
    sys.exit()
