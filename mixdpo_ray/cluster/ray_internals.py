"""What is used of Ray itself that it does not promise, each with its reason; a test holds that the names exist.

Every job imports this, so it imports no library of Ray's; for those see ray_train_internals.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from subprocess import Popen
from typing import Any

from ray._private import ray_constants, utils, worker, workers
from ray._private.parameter import RayParams
from ray._private.runtime_env import packaging
from ray._private.state import state

# `ray job submit` fails above it, after it has packed everything: Jobs API and cluster store take no larger value
UPLOAD_LIMIT = min(ray_constants.DASHBOARD_CLIENT_MAX_SIZE, packaging.GCS_STORAGE_MAX_SIZE)
ACTED_ON = ("memory pressure", "out of memory", "(OOM)", "% full")  # words of a raylet that a person can act on


def cluster_of_this_machine() -> str | None:
    """The address of the cluster that `ray start` began here last, alive or not; ray.init takes it unasked."""
    address: str | None = utils.read_ray_address()
    return address


def started_here() -> bool:
    """Whether this process has started the Ray that it uses. Public functions do not say."""
    return bool(worker.global_worker.node.is_head())


def cores_counted_twice(have: Mapping[str, float]) -> int | None:
    """The cores of this machine, where a Ray that was started here counts more CPUs: they are seats, not cores."""
    cores = os.cpu_count() or 1
    return cores if started_here() and have.get("CPU", 0) > cores else None


@contextmanager
def heard_if_it_helps() -> Iterator[None]:
    """Meanwhile leave out what raylets tell every driver and nobody can act on; there is no setting for it."""
    told = worker.print_to_stdstream

    def tell(data: dict[str, Any], **options: Any) -> None:
        if data["pid"] != "raylet" or any(word in line for line in data["lines"] for word in ACTED_ON):
            told(data, **options)

    worker.print_to_stdstream = tell
    try:
        yield
    finally:
        worker.print_to_stdstream = told


def processes_of_this_ray() -> dict[str, Popen[bytes]]:
    """Those without which nothing goes on, of a Ray that was started by this process. Ray says it after minutes."""
    node = worker.global_worker.node
    named = {
        ray_constants.PROCESS_TYPE_GCS_SERVER: "Ray's head (GCS)",
        ray_constants.PROCESS_TYPE_RAYLET: "Ray's raylet",
    }
    return {name: node.all_processes[kind][0].process for kind, name in named.items() if node.all_processes.get(kind)}


def most_ever() -> Mapping[str, float] | None:
    """The resources that the autoscaler may ever bring, where there is one. Public functions count what is there."""
    most: Mapping[str, float] | None = state.get_max_resources_from_cluster_config()
    return most


@contextmanager
def starting_with(**parameters: Any) -> Iterator[None]:
    """Start Ray meanwhile with parameters that ray.init has no arguments for."""
    by_default = RayParams.__init__
    RayParams.__init__ = partialmethod(by_default, **parameters)
    try:
        yield
    finally:
        RayParams.__init__ = by_default


def setup_worker_script() -> str:
    """Ray's script that starts a worker, which ours replaces and sometimes becomes."""
    (folder,) = workers.__path__
    return str(Path(folder) / "setup_worker.py")


def set_environment(variables: Mapping[str, str]) -> None:
    """Set a runtime environment's variables as Ray's own script does, which we do not run in a forked worker."""
    utils.update_envs(variables)


def uploaded_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Names and bytes of what `ray job submit --working-dir` would send; Ray tells only by sending it."""
    root = folder.absolute()
    found: list[Path] = []
    excludes = [packaging._get_excludes(root, ray_constants.get_runtime_env_default_excludes())]
    gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(root, excludes, found.append, gitignore, logging.getLogger(__name__))
    return ((f"{path.relative_to(root)}", path.stat().st_size) for path in found if path.is_file())
