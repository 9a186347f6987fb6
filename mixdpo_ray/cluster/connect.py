"""Connecting to Ray: a cluster that is there is used as it is; otherwise one is started, and only that one stopped."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from mixdpo_ray.bar import going_on, say
from mixdpo_ray.cluster.fork_server import fork_server
from mixdpo_ray.cluster.node_labels import KIND, KIND_SHARE, known_kinds, resources_selected, selector_text
from mixdpo_ray.cluster.ray_internals import (
    cluster_of_this_machine,
    heard_if_it_helps,
    processes_of_this_ray,
    starting_with,
)
from mixdpo_ray.cluster.ray_watch import watched
from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.wording import first_line

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
        going_on()
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with ExitStack() as stack:
        stack.enter_context(heard_if_it_helps())
        try:
            if address := os.environ.get("RAY_ADDRESS"):
                join_cluster(address)
                stack.callback(ray.shutdown)
            else:
                cpus = max(os.cpu_count() or 1, math.ceil(settings.cpus_for(settings.most_workers)), math.ceil(cpus))
                _start(cpus, stack)
        finally:
            going_on()  # what a job said when it began
        end_without_traces()
        yield


def end_without_traces() -> None:
    """Put Python's own handler of SIGTERM back: Ray lays one over it that prints the stack of C++ before it acts."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _without_preemption() -> Iterator[None]:
    """Nobody takes this machine away: each group of workers starts without the actor that would be told so."""
    set_here = _PREEMPTION not in os.environ
    os.environ.setdefault(_PREEMPTION, "0")
    try:
        yield
    finally:
        if set_here:
            del os.environ[_PREEMPTION]


_PREEMPTION = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"  # Ray Train's controller gets it from here
_SILENT = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
_ANSWER_SECONDS = 5
# Ray's head speaks gRPC, which begins with the greeting and the settings of HTTP/2 from either side
_HTTP2_SETTINGS = b"\x04"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _HTTP2_SETTINGS + b"\0\0\0\0\0"


def join_cluster(address: str) -> None:
    """The cluster at RAY_ADDRESS. Ray itself would wait two minutes for a host that is not there, and then kill us."""
    if address.startswith("ray://"):
        raise ResourceError(
            f"RAY_ADDRESS {address}: Ray's client protocol cannot run these jobs; use `ray job submit --address "
            "http://HOST:8265`, or run on a machine of the cluster"
        )
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        _refuse_other_servers(address, host, int(port))
    _join(address, f"RAY_ADDRESS {address}", "Unset it to run on this machine alone")


def _join(address: str, where: str, otherwise: str) -> None:
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", f"{_ANSWER_SECONDS}")  # a wrong token is tried 20 s long
    try:
        ray.init(address, **_SILENT)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise ResourceError(
            f"{where}: {first_line(error)}; is it a cluster of Ray {ray.__version__}, and is its token yours "
            f"(RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH)? {otherwise}"
        ) from None


def _refuse_other_servers(address: str, host: str, port: int) -> None:
    """Ray would try for minutes to speak with whoever answers."""
    try:
        with socket.create_connection((host, port), _ANSWER_SECONDS) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(_HTTP2_GREETING)
            answer = connection.recv(9)
    except TimeoutError:
        answer = b""
    except OSError as error:
        raise ResourceError(
            f"RAY_ADDRESS {address} does not answer ({error}): start the cluster, correct the address, or unset "
            "RAY_ADDRESS to run on this machine alone"
        ) from None
    encrypted = os.environ.get("RAY_USE_TLS", "0") not in ("", "0")
    if not encrypted and answer[3:4] != _HTTP2_SETTINGS:
        raise ResourceError(
            f"RAY_ADDRESS {address} answers, but not as Ray does: give the address that `ray start --head` printed "
            "(its port is 6379 by default), or unset RAY_ADDRESS to run on this machine alone"
        )


def _start(cpus: int, stack: ExitStack) -> None:
    """Start Ray here, unless `ray start` has; on a laptop its CPUs are seats: enough for workers and for reading."""
    address = cluster_of_this_machine()
    if address is not None and answers_as_ray(address):
        say(f"joining the Ray that was started on this machine, {address}")
        _join(address, f"the Ray of this machine, {address}", "Set RAY_ADDRESS=local to start one of your own")
        stack.callback(ray.shutdown)
    else:
        stack.enter_context(lone_ray(num_cpus=cpus))
    keep_token_private(Path.home())


def answers_as_ray(address: str) -> bool:
    """Whether a cluster is there: of one that was killed, Ray still knows the address, and would try it for minutes."""
    host, _, port = address.rpartition(":")
    try:
        _refuse_other_servers(address, host, int(port))
    except (ResourceError, ValueError):
        return False
    return True


@contextmanager
def lone_ray(**options: Any) -> Iterator[None]:
    """Start a Ray for this machine alone, with what ray.init has no argument for, and stop it in the end.

    Nothing watches for nodes to add, nor for logs to forward. Its agent takes a free port: by default all take the
    same one, and beside another Ray try for four seconds before they take another. Its workers are forked.
    """
    with fork_server() as start_worker:
        with starting_with(
            no_monitor=True,
            include_log_monitor=False,
            dashboard_agent_listen_port=0,
            setup_worker_path=start_worker,
        ):
            ray.init("local", **_SILENT, **options)
        try:
            with _without_preemption(), watched(processes_of_this_ray()):
                yield
        finally:
            ray.shutdown()


def keep_token_private(home: Path) -> None:
    """Ray makes it where there is none, for everybody to read; whoever has it can run code as this person."""
    token = home / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid() and token.stat().st_mode & 0o077:
        token.chmod(0o600)


def uses_gpu(settings: ClusterSettings) -> bool:
    if settings.use_gpu is not None:
        return settings.use_gpu
    return bool(ray.cluster_resources().get("GPU", 0) >= 1)


def wait_for_resources(settings: ClusterSettings, say: Callable[[str], None], spare_cpus: float = 0) -> bool:
    """Ask the autoscaler, say what is missing, and give up with the numbers: a job must never hang in silence.

    `spare_cpus`: what is needed beside the workers. Tells whether nodes came that nobody has looked over yet.
    """
    waited = False
    worker = worker_resources(settings)
    bundles = [worker, {"CPU": 1.0}] * settings.most_workers + [{"CPU": 1.0}] * math.ceil(spare_cpus)
    labels = [settings.label_selector if bundle is worker else {} for bundle in bundles]
    request_resources(bundles=bundles, bundle_label_selectors=labels if settings.label_selector else None)
    began = time.monotonic()
    while missing := missing_resources(settings, spare_cpus=spare_cpus):
        if time.monotonic() - began > settings.start_timeout_seconds:
            raise ResourceError(
                f"the cluster lacks {missing} after {settings.start_timeout_seconds:.0f} s; "
                "add nodes, or lower cluster.num_workers or cluster.cpus_per_worker"
            )
        say(f"waiting for {missing}")
        waited = True
        time.sleep(2)
    request_resources(bundles=[])
    return waited


def worker_resources(settings: ClusterSettings) -> dict[str, float]:
    """What one training worker reserves."""
    gpu = {"GPU": 1.0} if uses_gpu(settings) else {}
    if settings.accelerator_type is not None:
        gpu = {"GPU": 1.0, f"{KIND}{settings.accelerator_type}": KIND_SHARE}
    return {"CPU": settings.cpus_per_worker, **gpu, **settings.resources_per_worker}


def room_on_nodes(nodes: Sequence[Mapping[str, float]], each: Mapping[str, float]) -> list[int]:
    """How many workers each node has room for: one worker cannot be spread over two."""
    needed = {name: amount for name, amount in each.items() if amount}
    return [min(int(node.get(name, 0) / amount + 1e-9) for name, amount in needed.items()) for node in nodes]


def missing_resources(settings: ClusterSettings, *, to_start: bool = True, spare_cpus: float = 0) -> str:
    """What the cluster lacks for the fewest workers that are allowed, with the numbers.

    To start, each should have a CPU to read through; once started, they go on without (run_workers.py).
    """
    each = {name: amount * settings.fewest_workers for name, amount in worker_resources(settings).items()}
    spare = (settings.free_cpus_needed if to_start else 0) + spare_cpus
    missing = _missing({**each, "CPU": each.get("CPU", 0.0) + spare}, ray.cluster_resources())
    if not missing and settings.label_selector:
        where = f" on nodes with {selector_text(settings.label_selector)} (cluster.label_selector)"
        missing = _missing(each, resources_selected(settings), where)
    return ", ".join(missing)


def _missing(need: Mapping[str, float], have: Mapping[str, float], where: str = "") -> list[str]:
    return [
        _missing_text(name, amount, have.get(name, 0), where)
        for name, amount in need.items()
        if have.get(name, 0) < amount
    ]


def _missing_text(name: str, need: float, have: float, where: str) -> str:
    if name.startswith(KIND):  # of which a worker needs a trace: it is there, or not
        return f"a GPU of kind {name.removeprefix(KIND)}{where} (cluster.accelerator_type; {known_kinds()})"
    return f"{name}{where} (have {have:g}, need {need:g})"
