"""A cluster of two nodes on this machine that do not see the same folder under one path, nor the same source files.

/proc/self/cwd is a path that every process understands as its own working directory, and each node has one of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _initialize_internal_kv

import mixdpo_ray

APART = "/proc/self/cwd/shared"


@contextmanager
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """The first node works in folder/a, the second in folder/b with an edited copy of the package."""
    package = folder / "edited" / "mixdpo_ray"
    shutil.copytree(Path(str(mixdpo_ray.__file__)).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "errors.py").open("a") as file:
        file.write("# edited\n")
    where = Path.cwd()
    for name in ("a", "b"):
        (folder / name).mkdir(exist_ok=True)
    cluster = None
    # a folder of its own: whoever starts a Ray without an address joins the one that the usual folder names; and a
    # short one, for paths of sockets end at 107 bytes
    temporary = tempfile.mkdtemp(prefix="ray-")
    try:
        os.chdir(folder / "a")
        head = {"num_cpus": 4, "include_dashboard": False, "temp_dir": temporary}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        os.chdir(folder / "b")
        cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": str(package.parent)})
        os.chdir(where)
        yield cluster
    finally:
        os.chdir(where)
        if cluster is not None:
            cluster.shutdown()
            _know_our_own_again()
        shutil.rmtree(temporary, ignore_errors=True)


def _know_our_own_again() -> None:
    """Cluster.shutdown forgets the key-value store of this process, whichever cluster that belongs to."""
    if ray.is_initialized():
        _initialize_internal_kv(ray._private.worker.global_worker.gcs_client)
