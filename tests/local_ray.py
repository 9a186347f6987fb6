"""One Ray for all tests of a process that need none of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ray reads these when it starts, its workers with it.
QUICK = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a checkpoint's report waits for the next check: 2 s by default
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_metrics_report_interval_ms": "1000",  # by default 10 s
}


@contextmanager
def started() -> Iterator[None]:
    from mixdpo_ray.cluster.connect import lone_ray

    os.environ.update(QUICK)
    with lone_ray(num_cpus=4):
        yield
