"""An object store that lets every request wait, as one does that is not in the same building.

A process of its own serves moto's S3 behind a delay; the environment tells pyarrow where to find it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs

NAME = "slow"


@contextmanager
def slow_store(seconds: float) -> Iterator[dict[str, str]]:
    """What the environment of whoever uses the bucket s3://slow has to hold; it holds in this process meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.slow_store", f"{port}", f"{seconds}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        _until_it_answers(port, server)
        maker = pafs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True)
        maker.create_dir(NAME)
        yield environment
    finally:
        server.terminate()
        server.wait()
        for name in environment:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in environment if name in before})


def _until_it_answers(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the object store did not start"
            assert server.poll() is None, "the object store has ended"
            time.sleep(0.1)
        else:
            return


def _serve(port: int, seconds: float) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    store = DomainDispatcherApplication(create_backend_app)

    def delayed(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(seconds)
        answer: Iterable[bytes] = store(environ, start)
        return answer

    run_simple("127.0.0.1", port, delayed, threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
