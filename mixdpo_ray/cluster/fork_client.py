"""What Ray starts for a worker where there is a fork server: ask for a fork, and wait until that has ended.

It is run as a script by its path, and imports nothing of ours and nothing that takes long. Without a server, and for
workers that need an interpreter or a command of their own, it becomes Ray's own script for starting one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

SOCKET = "MIXDPO_RAY_FORK_SERVER"  # the variable that names the server's socket
SCRIPT = "MIXDPO_RAY_SETUP_WORKER"  # and the one that names Ray's own script
LANGUAGE, CONTEXT = "--language=", "--serialized-runtime-env-context="
SIZE = struct.Struct("I")


def main() -> None:
    if not (_is_plain() and _forked()):
        _start_as_ray_does()


def send(connection: socket.socket, request: dict[str, Any]) -> None:
    content = json.dumps(request).encode()
    socket.send_fds(connection, [SIZE.pack(len(content))], [0, 1, 2])
    connection.sendall(content)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request, and its standard input, output and error."""
    head, files, _, _ = socket.recv_fds(connection, SIZE.size, 3)
    content, size = b"", SIZE.unpack(head)[0]
    while len(content) < size:
        content += connection.recv(size - len(content))
    return json.loads(content), list(files)


def _is_plain() -> bool:
    context = json.loads(_argument(CONTEXT) or "{}")
    own = context.get("command_prefix") or context.get("override_worker_entrypoint")
    return _argument(LANGUAGE) == "PYTHON" and not own and context.get("py_executable") in (None, sys.executable)


def _argument(name: str) -> str | None:
    return next((word.removeprefix(name) for word in sys.argv if word.startswith(name)), None)


def _forked() -> bool:
    """Whether there was a server, which has forked the worker, which has ended."""
    request = {
        "worker": [word for word in sys.argv[1:] if not word.startswith((LANGUAGE, CONTEXT))],
        "context": _argument(CONTEXT) or "{}",
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "oom_score": Path("/proc/self/oom_score_adj").read_text(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[SOCKET])
            send(connection, request)
        except OSError:
            return False
        with suppress(ConnectionResetError):
            connection.recv(1)
    return True


def _start_as_ray_does() -> None:
    os.execv(sys.executable, [sys.executable, os.environ[SCRIPT], *sys.argv[1:]])


if __name__ == "__main__":
    main()
