"""Workers of a lone Ray are forked with what they need imported, and are otherwise like any worker of Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from mixdpo_ray.cluster import fork_client, fork_server
from mixdpo_ray.cluster.ray_internals import setup_worker_script

pytestmark = pytest.mark.cluster
PATIENCE = 60.0


@ray.remote(num_cpus=0)
class Worker:
    def facts(self) -> dict[str, Any]:
        import numpy as np
        from ray._raylet import WorkerID

        return {
            "pid": os.getpid(),
            "ready": "deepspeed" in sys.modules,
            "random": (float(np.random.rand()), WorkerID.from_random().hex()),
            "leads its group": os.getpgrp() == os.getpid(),
            "first to be killed": Path("/proc/self/oom_score_adj").read_text().strip() == "1000",
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        }


def two(**options: Any) -> list[dict[str, Any]]:
    actor_class: Any = Worker
    workers = [actor_class.options(**options).remote() for _ in range(2)]
    found: list[dict[str, Any]] = ray.get([worker.facts.remote() for worker in workers])
    return found


def test_forked_workers_have_imported_everything_and_share_no_random_numbers(local_ray: None) -> None:
    one, other = two()
    assert one["ready"]
    assert one["random"][0] != other["random"][0]
    assert one["random"][1] != other["random"][1]


def test_they_are_what_ray_makes_of_its_workers(local_ray: None) -> None:
    """A worker with an interpreter of its own is started by Ray alone."""
    alike = ("leads its group", "first to be killed", "niceness")
    forked, plain = two()[0], two(runtime_env={"py_executable": f"{sys.executable} -B"})[0]
    assert not plain["ready"]
    assert {name: forked[name] for name in alike} == {name: plain[name] for name in alike}


def test_where_there_is_a_gpu_nothing_is_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "DEVICES", (str(tmp_path),))
    with fork_server.fork_server() as start_worker:
        assert start_worker is None


LATER = """
import os, psutil, ray
from mixdpo_ray.cluster.connect import lone_ray

@ray.remote
def here():
    import sys
    return "deepspeed" in sys.modules, os.getpriority(os.PRIO_PROCESS, 0)

with lone_ray(num_cpus=1):
    print(*ray.get(here.remote()))
    (server,) = [one for one in psutil.Process().children() if "fork_server" in "".join(one.cmdline())]
    server.kill()
    server.wait()
    print(*ray.get(here.options(runtime_env={"env_vars": {"ANOTHER": "worker"}}).remote()))
"""


def test_where_the_server_was_killed_ray_starts_workers_its_own_way() -> None:
    """Both as nice as Ray wants its workers, which is added to what this process is."""
    environment = {**os.environ, "RAY_worker_niceness": "7"}
    done = subprocess.run([sys.executable, "-c", LATER], env=environment, capture_output=True, text=True, check=True)
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    assert done.stdout.splitlines() == [f"True {nice}", f"False {nice}"]


def test_without_a_server_the_client_becomes_rays_own_script(tmp_path: Path) -> None:
    told = {fork_client.SOCKET: str(tmp_path / "nobody"), fork_client.SCRIPT: setup_worker_script()}
    environment = {**os.environ, **told}
    command = [sys.executable, fork_client.__file__, "--language=PYTHON", str(tmp_path / "worker.py"), "an argument"]
    (tmp_path / "worker.py").write_text("import sys; print(*sys.argv[1:])")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "an argument"), done.stderr


def test_the_server_ends_with_its_driver() -> None:
    program = """
import os, psutil
from mixdpo_ray.cluster.fork_server import fork_server
with fork_server():
    print(psutil.Process().children()[0].pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    server = int(done.stdout)
    _, left = psutil.wait_procs([psutil.Process(server)] if psutil.pid_exists(server) else [], PATIENCE)
    assert not left
