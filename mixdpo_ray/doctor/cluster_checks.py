"""Checks of the cluster: its nodes, what they share, what they have room for, and what is sent to them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import ray

from mixdpo_ray.cluster.connect import missing_resources, room_on_nodes, worker_resources
from mixdpo_ray.cluster.node_labels import offered, without_kinds
from mixdpo_ray.cluster.nodes import Node, storage_problem, version_problem
from mixdpo_ray.cluster.preflight import absent_file, cannot_train, does_not_fit, lacking, some_of, what_to_change
from mixdpo_ray.cluster.ray_internals import UPLOAD_LIMIT, most_ever
from mixdpo_ray.cluster.tracker_keys import lacks_of_trackers
from mixdpo_ray.cluster.upload import measure_upload
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution, CheckFailed, Unchecked, counted
from mixdpo_ray.wording import size_text


def cluster(examination: Examination) -> str:
    if not ray.is_initialized():
        raise CheckFailed("no Ray is connected: start one, or unset RAY_ADDRESS to run on this machine")
    nodes = examination.nodes
    have = ray.cluster_resources()
    if examination.is_this_machine:
        gpus = counted(int(have.get("GPU", 0)), "GPU") if have.get("GPU") else "no GPU"
        memory = size_text(nodes[0].answer.free_memory)
        return f"this machine: {counted(cores(), 'core')}, {memory} of memory free, {gpus}"
    names = f" ({some_of([node.name for node in nodes])})" if len(nodes) > 1 else ""
    where = f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}" if "RAY_ADDRESS" in os.environ else "on this machine"
    gpus = f"{have['GPU']:g} GPU" if have.get("GPU") else "no GPU"
    return f"{counted(len(nodes), 'node')}{names}, {have.get('CPU', 0):g} CPU, {gpus}, {where}"


def cores() -> int:
    return os.cpu_count() or 1


def storage(examination: Examination) -> str:
    path = examination.recipe.output.storage_path
    if problem := storage_problem(path, examination.nodes):
        raise CheckFailed(problem)
    free = [node.answer.free_disk for node in examination.nodes if node.answer.free_disk is not None]
    room = f", {size_text(min(free))} free" if free else ""
    who = "this node" if len(examination.nodes) == 1 else f"each of {len(examination.nodes)} nodes, and read by all"
    return f"{path}: written by {who}{room}"


def versions(examination: Examination) -> str:
    if problem := version_problem(examination.nodes) or cannot_train(examination.recipe, examination.nodes):
        raise CheckFailed(problem)
    driver = examination.nodes[0].answer.versions
    found = ", ".join(f"{name} {version}" for name, version in driver.items())
    return found if len(examination.nodes) == 1 else f"{found}; the same on {len(examination.nodes)} nodes"


def files(examination: Examination) -> str:
    if problem := absent_file(examination.nodes):
        raise CheckFailed(problem)
    if not examination.local_paths:
        return "no local path is needed"
    return f"{counted(len(examination.local_paths), 'local path')} seen by {counted(len(examination.nodes), 'node')}"


def workers(examination: Examination) -> str | Caution:
    settings = examination.recipe.cluster
    each = worker_resources(settings)
    shape = " + ".join(f"{amount:g} {name}" for name, amount in each.items())
    if missing := missing_resources(settings):
        remedy = what_to_change(settings, "add nodes")
        brought = most_ever()
        if brought is None or lacking(settings, without_kinds(each), brought):
            raise CheckFailed(f"the cluster lacks {missing}: {remedy}")
        return Caution(f"the cluster lacks {missing}; its autoscaler is allowed to bring them")
    room = room_on_nodes([offered(settings, node.resources, node.labels) for node in examination.nodes], each)
    if problem := does_not_fit(settings, shape, [node.name for node in examination.nodes], room):
        raise CheckFailed(problem)
    count = min(settings.most_workers, sum(room))
    cpus = ray.cluster_resources().get("CPU", 0)
    left = cpus - count * each["CPU"]
    while left < count:  # each reads through a CPU of its own
        count -= 1
        left = cpus - count * each["CPU"]
    now = f" (now {count})" if settings.elastic else ""
    asked = (
        f"{settings.fewest_workers} to {settings.most_workers} workers"
        if settings.elastic
        else counted(count, "worker")
    )
    if examination.is_this_machine:  # its CPUs were counted so that they suffice
        text = f"{asked}{now} of {shape} on {counted(cores(), 'core')}"
        crowded = not examination.gpu and count > cores()
        return Caution(f"{text}: they take turns, cluster.num_workers={cores()} is as fast") if crowded else text
    return f"{asked}{now} of {shape}; {left:g} of {cpus:g} CPU left to read, {count} needed"


def trackers(examination: Examination) -> str:
    named = examination.recipe.output.trackers
    if problem := lacks_of_trackers(examination.recipe):
        raise CheckFailed(problem)
    return f"{', '.join(named)}; a training goes on without one that is down" if named else "none is named"


def upload(examination: Examination) -> str:
    folder = examination.folder
    if not all((folder / name).is_dir() for name in ("jobs", "mixdpo_ray")):
        raise Unchecked(f"{folder} is no checkout; run this where `ray job submit --working-dir .` would be run")
    measured = measure_upload(folder)
    largest = ", ".join(f"{name} {size_text(size)}" for name, size in measured.largest)
    found = f"{size_text(measured.bytes)} in {counted(measured.files, 'file')}"
    if measured.bytes > UPLOAD_LIMIT:
        raise CheckFailed(
            f"{found} would be submitted, and Ray takes {size_text(UPLOAD_LIMIT)}: name the largest in .rayignore "
            f"({largest})"
        )
    return f"{found}; the largest: {largest}"


def free_gpu_memory(nodes: Sequence[Node]) -> list[int]:
    return [free for node in nodes for free, _ in node.answer.gpu_memory]
