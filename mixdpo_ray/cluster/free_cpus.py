"""Ray Data's tasks run on CPUs that nobody has reserved. With none free they would wait for ever without a word."""

from __future__ import annotations

import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

from mixdpo_ray.errors import ResourceError


def wait_for_a_cpu(timeout_seconds: float) -> None:
    """Ask the autoscaler for one, say so, and give up with the numbers."""
    began, told = time.monotonic(), False
    while ray.available_resources().get("CPU", 0) < 1:
        free, all_cpus = (resources.get("CPU", 0) for resources in (ray.available_resources(), ray.cluster_resources()))
        if not told:
            request_resources(num_cpus=1)
            print(f"waiting for a CPU (free {free:g} of {all_cpus:g}, need 1)", file=sys.stderr)
            told = True
        if time.monotonic() - began > timeout_seconds:
            raise ResourceError(
                f"no CPU became free in {timeout_seconds:.0f} s (free {free:g} of {all_cpus:g}, need 1): "
                "stop another job or add a node"
            )
        time.sleep(1)
    if told:
        request_resources(num_cpus=0)
