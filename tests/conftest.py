"""What tests of every room share.

One thread for each process that computes, Ctrl-C that is heard, which tests run in one worker of `pytest -n`, and an
object store, the s3:// that a cluster's nodes share.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
import pytest

from tests.local_ray import started

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

NAME = "outputs"
# Tests of these rooms share processes that take many seconds to start: DeepSpeed's workers, and TRL
TOGETHER = ("tests/training/", "tests/peer/")
# Before torch is imported, and for processes that tests start: models here are so small that threads only wait
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Else Ray's workers starve beside the tests of another process
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Gives each worker of `pytest -n` whole files, and whole rooms of TOGETHER: what they share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((room for room in TOGETHER if file.startswith(room)), file)

    config.option.loadscopereorder = False  # not by the number of tests, but in the order below
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what starts clusters, of that the hosts, then what stays together: last, it leaves a core idle."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("cluster") is None,
            not item.nodeid.startswith("tests/deploy/"),
            not item.nodeid.startswith(TOGETHER),
        )
    )


@pytest.fixture(scope="session", autouse=True)
def _interruptions_are_heard() -> None:
    """In the background of a shell Ctrl-C is ignored, and every process that a test starts would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Its URI. The environment tells pyarrow, here and in processes that are started, where to find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", f"{port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    credentials = {
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    added = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true", **credentials}
    before = dict(os.environ)
    os.environ.update(added)
    try:
        _until_it_answers(port)
        maker = pafs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True)
        maker.create_dir(NAME)
        yield f"s3://{NAME}"
    finally:
        server.terminate()
        server.wait()
        for name in added:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in added if name in before})


@pytest.fixture(scope="session")
def local_ray(bucket: str) -> Iterator[None]:
    """Its workers know the object store."""
    with started():
        yield


def _until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the object store did not start"
            time.sleep(0.1)
        else:
            return
