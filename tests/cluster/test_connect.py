import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from mixdpo_ray.cluster.connect import answers_as_ray, connected, join_cluster, uses_gpu, wait_for_resources
from mixdpo_ray.cluster.trial_slots import DRIVER_CPUS
from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_a_ray_that_is_there_is_used_and_left_running() -> None:
    before = ray.get_runtime_context().get_job_id()
    with connected(ClusterSettings()):
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


def test_workers_that_the_cluster_cannot_hold_are_refused_with_the_numbers() -> None:
    """Four CPUs: two workers and the two CPUs that read for them fit, three and three do not."""
    wait_for_resources(ClusterSettings(num_workers=2, use_gpu=False), lambda text: None)
    said: list[str] = []
    with pytest.raises(ResourceError, match=r"lacks CPU \(have 4, need 6\) after 0 s.*lower cluster\.num_workers"):
        wait_for_resources(ClusterSettings(num_workers=3, use_gpu=False, start_timeout_seconds=0.1), said.append)
    assert said == ["waiting for CPU (have 4, need 6)"]


def test_gpus_are_used_where_the_recipe_says_so_or_the_cluster_has_them() -> None:
    assert not uses_gpu(ClusterSettings())
    assert uses_gpu(ClusterSettings(use_gpu=True))
    with pytest.raises(ResourceError, match=r"GPU \(have 0, need 1\)"):
        wait_for_resources(ClusterSettings(num_workers=1, use_gpu=True, start_timeout_seconds=0.1), lambda text: None)


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ResourceError, match=rf"RAY_ADDRESS {address} does not answer \(.*refused.*unset RAY_ADDRESS"):
        join_cluster(address)


def test_an_address_where_something_else_answers_is_refused_at_once() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(ResourceError, match=rf"RAY_ADDRESS {address} answers, but not as Ray does: .*6379"):
            join_cluster(address)


def test_a_cluster_of_this_machine_that_was_killed_is_not_waited_for() -> None:
    """Ray keeps its address in a file, and would try to reach it for three minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not answers_as_ray(f"127.0.0.1:{free.getsockname()[1]}")
    assert not answers_as_ray("garbage")
    assert answers_as_ray(ray.get_runtime_context().gcs_address)


def test_the_client_protocol_is_refused_with_the_way_to_submit() -> None:
    with pytest.raises(ResourceError, match="ray job submit"):
        join_cluster("ray://127.0.0.1:10001")


CONNECT = """
from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.recipe.cluster import ClusterSettings
def job():
    with connected(ClusterSettings()):
        print("connected")
raise SystemExit(exit_status(job))
"""


def test_a_cluster_that_refuses_the_token_is_one_line() -> None:
    address = ray.get_runtime_context().gcs_address
    there = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "guessed"}
    told = subprocess.run(
        [sys.executable, "-c", CONNECT], env={**os.environ, **there}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert f"failed: RAY_ADDRESS {address}: Failed to connect" in told.stderr
    assert "is its token yours" in told.stderr


def test_a_job_that_is_terminated_ends_without_a_stack_of_ray() -> None:
    program = f"import os, signal, time\n{CONNECT}".replace(
        'print("connected")', "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    )
    there = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    told = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **there}, capture_output=True, text=True, check=False
    )
    assert told.returncode == signal.SIGTERM
    assert told.stderr == ""


def test_what_is_needed_beside_the_workers_is_waited_for_as_well() -> None:
    """Two workers with a CPU each, two CPUs to read: four, which are there. A trial's own process takes more."""
    settings = ClusterSettings(num_workers=2, use_gpu=False, start_timeout_seconds=0.1)
    wait_for_resources(settings, lambda text: None)
    with pytest.raises(ResourceError, match=r"CPU \(have 4, need 4\.1\)"):
        wait_for_resources(settings, lambda text: None, DRIVER_CPUS)
