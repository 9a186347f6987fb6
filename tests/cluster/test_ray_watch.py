"""A Ray of this machine alone, whose own processes are killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import psutil
import pytest

JOB = """
import time
from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.ray_internals import processes_of_this_ray
from mixdpo_ray.recipe.cluster import ClusterSettings
def job():
    with connected(ClusterSettings()):
        print(*(process.pid for process in processes_of_this_ray().values()), flush=True)
        time.sleep(600)
raise SystemExit(exit_status(job))
"""


def runs(process: psutil.Process) -> bool:
    """Whoever nobody waits for stays a zombie where no init process reaps."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.cluster
@pytest.mark.parametrize(("killed", "name"), [(0, r"Ray's head \(GCS\)"), (1, "Ray's raylet")])
def test_a_ray_that_dies_ends_the_job_with_one_line(killed: int, name: str) -> None:
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", JOB]
    with subprocess.Popen(command, env=alone, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        pids = [int(pid) for pid in job.stdout.readline().split()]
        before = [process for pid in pids for process in (psutil.Process(pid), *psutil.Process(pid).children(True))]
        psutil.Process(pids[killed]).kill()
        _, said = job.communicate()
    assert job.returncode == 1
    assert re.fullmatch(rf"failed: {name} died \(killed, or out of memory\); the same command continues\n", said)
    deadline = time.monotonic() + 60
    while any(map(runs, before)):
        assert time.monotonic() < deadline, list(filter(runs, before))
        time.sleep(0.1)
