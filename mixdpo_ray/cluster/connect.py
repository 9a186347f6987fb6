"""Connecting to Ray: a cluster that is there is used as it is; otherwise one is started, and only that one stopped."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources

from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.errors import ResourceError

# Ray reads these when it starts; none of them overrides what a person has set.
_QUIET = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a checkpoint's report waits for the next check: 2 s by default
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def connected(settings: ClusterSettings, cpus: float = 0) -> Iterator[None]:
    """`cpus`: how many a Ray that is started here should have at least."""
    if ray.is_initialized():
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        # On a laptop Ray's CPUs are seats, not cores: there must be enough for the workers and for reading.
        seats = max(os.cpu_count() or 1, math.ceil(settings.cpus_needed), math.ceil(cpus))
        try:
            ray.init(num_cpus=seats, **quiet)
        except ValueError:  # a running cluster takes no resources from a driver
            ray.init(**quiet)
    try:
        yield
    finally:
        ray.shutdown()


def uses_gpu(settings: ClusterSettings) -> bool:
    if settings.use_gpu is not None:
        return settings.use_gpu
    return bool(ray.cluster_resources().get("GPU", 0) >= 1)


def wait_for_resources(settings: ClusterSettings, say: Callable[[str], None]) -> None:
    """Ask the autoscaler, say what is missing, and give up with the numbers: a job must never hang in silence."""
    need = {"CPU": settings.cpus_needed}
    if uses_gpu(settings):
        need["GPU"] = float(settings.num_workers)
    for name, amount in settings.resources_per_worker.items():
        need[name] = need.get(name, 0.0) + amount * settings.num_workers
    worker = {"CPU": settings.cpus_per_worker, **({"GPU": 1} if "GPU" in need else {}), **settings.resources_per_worker}
    request_resources(bundles=[worker, {"CPU": 1}] * settings.num_workers)
    began = time.monotonic()
    while missing := _missing(need):
        if time.monotonic() - began > settings.start_timeout_seconds:
            raise ResourceError(
                f"the cluster lacks {missing} after {settings.start_timeout_seconds:.0f} s; "
                "add nodes, or lower cluster.num_workers or cluster.cpus_per_worker"
            )
        say(f"waiting for {missing}")
        time.sleep(2)
    request_resources(bundles=[])


def _missing(need: dict[str, float]) -> str:
    have = ray.cluster_resources()
    return ", ".join(
        f"{name} (have {have.get(name, 0):g}, need {amount:g})"
        for name, amount in need.items()
        if have.get(name, 0) < amount
    )
