"""What every node of the cluster says of itself: whether it shares the storage, its versions, and what it has left.

One small task per node, all at once, in two rounds: each writes a file under output.storage_path, then each reads those
of the others. The driver's own node is asked in this process, so that on one machine there is no task at all.
Nothing here imports torch, which would take longer than the questions.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mixdpo_ray
from mixdpo_ray import storage
from mixdpo_ray.errors import ResourceError, StorageError
from mixdpo_ray.recipe.extras import lacks

PACKAGES = ("ray", "torch", "transformers", "deepspeed")
LAGGING = 3.0  # seconds that a network file system gets to show what another node wrote
STORAGE_PROBE = ".probe-"
GPU_MEMORY = "import torch as t; print(*(x for n in range(t.cuda.device_count()) for x in t.cuda.mem_get_info(n)))"


@dataclass(frozen=True)
class NodeAnswer:
    """One node's answer to a survey."""

    versions: Mapping[str, str]
    written: str | None  # name of its file under the storage path; None where it could not write
    problem: str  # why not
    made: tuple[Path, ...]  # folders that did not exist before
    absent: tuple[str, ...]  # local paths that do not exist there
    free_disk: int | None  # bytes at the storage path; None where that is a store without a limit
    free_memory: int  # bytes of the host
    gpu_memory: tuple[tuple[int, int], ...]  # (free, all) bytes of each GPU, where they were asked for
    lacking: tuple[str, ...] = ()  # modules that it cannot import


@dataclass(frozen=True)
class Node:
    name: str
    resources: Mapping[str, float]
    answer: NodeAnswer
    labels: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()  # nodes whose files it does not see

    @property
    def gpus(self) -> int:
        return int(self.resources.get("GPU", 0))


@dataclass(frozen=True)
class _Question:
    """The folder that a node is asked to write to, and what else it is asked."""

    storage_path: str
    folder: str  # of the probes
    paths: tuple[str, ...]
    modules: tuple[str, ...] = ()  # asked by a driver of another version, nodes answer too: versions are compared then


def survey(
    storage_path: str,
    paths: Sequence[str] = (),
    modules: Sequence[str] = (),
    *,
    gpu_memory: bool = False,
    patience: float = 20.0,
) -> list[Node]:
    """All alive nodes, the driver's own first. `paths` are local ones, and `modules`, that each of them should have."""
    here = ray.get_runtime_context().get_node_id()
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    names = _names(alive)
    probes = storage.join(storage_path, f"{STORAGE_PROBE}{uuid.uuid4().hex[:12]}")
    question = _Question(storage_path, probes, tuple(paths), tuple(modules))
    gpus = [gpu_memory and node["Resources"].get("GPU", 0) > 0 for node in alive]
    made = _missing_folders(storage_path)
    try:
        told = [(question, name, gpu) for name, gpu in zip(names, gpus, strict=True)]
        answers = _ask_all(names, here, _introduce, told, patience)
        files = tuple(answer.written for answer in answers if answer.written)
        unseen = _ask_all(names, here, _look_around, [(question, files)] * len(names), patience)
        if any(unseen):
            _ask_all(names, here, _sweep, [(question, answer.made) for answer in answers], patience)
    finally:
        _sweep(question, made)
    return [
        Node(names[node["NodeID"]], node["Resources"], answer, node["Labels"], tuple(names[one] for one in missing))
        for node, answer, missing in zip(alive, answers, unseen, strict=True)
    ]


def storage_problem(storage_path: str, nodes: Sequence[Node]) -> str | None:
    """One line, or nothing where every node wrote there and read what the others had written."""
    for node in nodes:
        if node.answer.problem:
            where = f" on {node.name}" if len(nodes) > 1 else ""
            return f"output.storage_path cannot be used{where}: {node.answer.problem}"
        if node.unseen:
            return (
                f"output.storage_path {storage_path} is not shared: {node.name} does not see what {node.unseen[0]} "
                "wrote there; choose a folder that all nodes mount, or a URI such as s3://bucket/folder"
            )
    return None


def version_problem(nodes: Sequence[Node]) -> str | None:
    """Compared with the driver's node. How torch was built may differ: a head without GPUs needs no CUDA."""
    driver = nodes[0].answer.versions
    for name in driver:
        others: dict[str, str] = {}
        for node in nodes[1:]:
            others.setdefault(node.answer.versions[name].partition("+")[0], node.name)
        others.pop(driver[name].partition("+")[0], None)
        if others:
            there = ", ".join(f"{value} on {node}" for value, node in others.items())
            remedy = (
                "submit with --working-dir . from one checkout, and leave no other copy installed on the nodes"
                if name == mixdpo_ray.__name__
                else "install the same on all nodes, by one image or the same setup commands"
            )
            return f"{name} is {driver[name]} on {nodes[0].name}, but {there}: {remedy}"
    return None


def _names(alive: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Node ids to names that people know: host names, or with a part of the id where one host runs several nodes."""
    hosts = [node["NodeManagerHostname"] for node in alive]
    return {
        node["NodeID"]: host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:6]}"
        for node, host in zip(alive, hosts, strict=True)
    }


def _ask_all(
    names: Mapping[str, str],
    here: str,
    question: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    patience: float,
) -> list[Any]:
    """The answers in the order of the nodes, or an error that names the node that gives none."""
    asked = {
        node_id: ray.remote(num_cpus=0, max_retries=0)(question)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
        .remote(*own)
        for node_id, own in zip(names, arguments, strict=True)
        if node_id != here
    }
    answers = {node_id: question(*own) for node_id, own in zip(names, arguments, strict=True) if node_id == here}
    silent = ray.wait(list(asked.values()), num_returns=len(asked), timeout=patience)[1] if asked else []
    for reference in silent:
        ray.cancel(reference, force=True)
    for node_id, reference in asked.items():
        if reference in silent:
            raise ResourceError(
                f"node {names[node_id]} gave no answer in {patience:.0f} s: look whether it is overloaded or cut off, "
                "or stop Ray there"
            )
        try:
            answers[node_id] = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ResourceError(
                f"node {names[node_id]} cannot run a task: {_last_line(error)}; every node needs the same "
                "packages (submit with --working-dir . from the checkout)"
            ) from None
    return [answers[node_id] for node_id in names]


def _last_line(error: Exception) -> str:
    """The last line of a traceback, which is what Ray hands on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]


# What runs on a node.


def _introduce(question: _Question, node_id: str, gpus: bool) -> NodeAnswer:
    written, problem, made = None, "", _missing_folders(question.storage_path)
    file = storage.join(question.folder, node_id)
    try:
        storage.write_bytes(file, node_id.encode())
        written = node_id
    except (StorageError, pa.ArrowException) as error:
        problem = " ".join(str(error).split())
        for ours in (file, question.folder):
            problem = problem.replace(ours, question.storage_path)
    return NodeAnswer(
        versions=library_versions(),
        written=written,
        problem=problem,
        made=made,
        absent=tuple(path for path in question.paths if not Path(path).exists()),
        free_disk=free_disk(question.storage_path),
        free_memory=free_memory(),
        gpu_memory=_gpu_memory() if gpus else (),
        lacking=tuple(filter(lacks, question.modules)),
    )


def _look_around(question: _Question, files: Sequence[str]) -> tuple[str, ...]:
    """The files that cannot be read here."""
    deadline = time.monotonic() + LAGGING
    while (unseen := _unseen(question.folder, files)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return unseen


def _unseen(folder: str, files: Sequence[str]) -> tuple[str, ...]:
    def right(name: str) -> bool:
        path = storage.join(folder, name)
        return storage.exists(path) and storage.read_bytes(path) == name.encode()

    return tuple(name for name in files if not right(name))


def _sweep(question: _Question, made: Sequence[Path]) -> None:
    """Nothing is left, unless somebody else has put something there by now."""
    with suppress(StorageError, pa.ArrowException):  # what could not be written cannot be deleted either
        storage.delete(question.folder)
    for path in made:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _missing_folders(storage_path: str) -> tuple[Path, ...]:
    """Innermost first."""
    if not storage.is_local(storage_path):
        return ()
    folder = Path(storage.absolute(storage_path))
    return tuple(path for path in (folder, *folder.parents) if not path.exists())


def library_versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return {**found, mixdpo_ray.__name__: source_digest(Path(str(mixdpo_ray.__file__)).parent)}


def source_digest(package: Path) -> str:
    """A digest of a package's source by content: the version number stays the same while people edit."""
    sha = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        sha.update(f"{file.relative_to(package)} {file.stat().st_size}\n".encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()[:12]


def free_disk(storage_path: str) -> int | None:
    if not storage.is_local(storage_path):
        return None
    folder = Path(storage.absolute(storage_path))
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def free_memory() -> int:
    """What this host could still give: the kernel's own estimate, or what the container's limit leaves."""
    if not Path("/proc/meminfo").is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free


def _gpu_memory() -> tuple[tuple[int, int], ...]:
    """Ask for the memory of GPUs in a process of its own: what CUDA takes for itself is given back when it ends."""
    environment = dict(os.environ)
    if not environment.get("CUDA_VISIBLE_DEVICES"):  # Ray hides GPUs from tasks that reserved none
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    told = subprocess.run(
        [sys.executable, "-c", GPU_MEMORY], env=environment, capture_output=True, text=True, check=False
    )
    numbers = [int(word) for word in told.stdout.split()] if told.returncode == 0 else []
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
