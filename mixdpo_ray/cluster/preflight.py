"""What every job checks before anything is loaded: seconds, where a mistake would otherwise show after minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray

from mixdpo_ray import storage
from mixdpo_ray.bar import waiting
from mixdpo_ray.cluster.connect import connected, missing_resources, room_on_nodes, uses_gpu, worker_resources
from mixdpo_ray.cluster.node_labels import offered, without_kinds
from mixdpo_ray.cluster.nodes import Node, storage_problem, survey, version_problem
from mixdpo_ray.cluster.ray_internals import most_ever, started_here
from mixdpo_ray.cluster.tracker_keys import lacks_of_trackers
from mixdpo_ray.errors import ResourceError, StorageError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.extras import extras_for_training
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.model_files import with_absolute_paths


@contextmanager
def ready_cluster(recipe: Recipe, *, cpus: float = 0, trains: bool = True) -> Iterator[None]:
    """Ray connected and looked over once, which is what the body of every verb needs, whoever calls it.

    A Ray that is connected already stays as it is. One that is started here has `cpus` at least and ends with the body.
    """
    with connected(recipe.cluster, cpus):
        with waiting("Ray is there: looking over its nodes and the storage"):
            preflight(recipe, trains=trains)
        yield


def preflight(recipe: Recipe, *, trains: bool = True) -> None:
    """Raise one line. Ray must be connected; on one machine this writes and reads one small file."""
    path = recipe.output.storage_path
    extras = extras_for_training(recipe) if trains else []
    nodes = survey(path, local_paths(recipe), [extra.module for extra in extras])
    if problem := storage_problem(path, nodes):
        raise StorageError(problem)
    if problem := version_problem(nodes) or absent_file(nodes):
        raise ResourceError(problem)
    if trains and (problem := never_fits(recipe.cluster, nodes) or cannot_train(recipe, nodes)):
        raise ResourceError(problem)
    if trains and (problem := lacks_of_trackers(recipe)):
        raise ResourceError(problem)


def cannot_train(recipe: Recipe, nodes: Sequence[Node]) -> str | None:
    """What the recipe's settings need and a node that has room for a worker lacks: a library, or GPUs."""
    if recipe.model.kernels == "liger" and not uses_gpu(recipe.cluster):
        return "model.kernels liger needs GPUs, and there are none: set it to none"
    offers = [offered(recipe.cluster, node.resources, node.labels) for node in nodes]
    room = room_on_nodes(offers, worker_resources(recipe.cluster))
    for extra in extras_for_training(recipe):
        for node, count in zip(nodes, room, strict=True):
            if count and extra.module in node.answer.lacking:
                return extra.lacking(f" on {node.name}" if len(nodes) > 1 else "")
    return None


def never_fits(settings: ClusterSettings, nodes: list[Node]) -> str | None:
    """Nothing where waiting may help: nodes can join a cluster that others have started."""
    each = worker_resources(settings)
    most = most_ever()
    if most is not None:
        brought = without_kinds(each)
        have = ", ".join(f"{most.get(name, 0):g} {name}" for name in brought)
        if not lacking(settings, brought, most):
            return None
        return (
            f"{settings.fewest_workers} workers need more than the autoscaler may ever bring ({have}): raise its "
            "limits, or lower cluster.num_workers or cluster.cpus_per_worker"
        )
    if not started_here():
        return None
    if missing := missing_resources(settings):
        return f"this machine lacks {missing}: {what_to_change(settings, 'set RAY_ADDRESS to a cluster that has them')}"
    shape = " + ".join(f"{amount:g} {name}" for name, amount in each.items())
    room = room_on_nodes([offered(settings, node.resources, node.labels) for node in nodes], each)
    return does_not_fit(settings, shape, [node.name for node in nodes], room)


def what_to_change(settings: ClusterSettings, more: str) -> str:
    """What could help workers that do not fit; fewer of them are no help where there is no GPU at all."""
    if uses_gpu(settings) and not ray.cluster_resources().get("GPU"):
        return f"{more}, or for a model that CPUs can train set cluster.use_gpu=false; jobs/clusters/README.md says how"
    return f"{more}, or lower cluster.num_workers or cluster.cpus_per_worker"


def local_paths(recipe: Recipe) -> tuple[str, ...]:
    """Paths of model and data that exist here; of a pattern, the folder that it begins with."""
    model = with_absolute_paths(recipe.model)
    named = [model.path, model.tokenizer, model.chat_template, model.reference]
    named += [None if model.lora is None else model.lora.adapter]
    named += [getattr(metric, "model", None) for metric in recipe.metrics.values()]
    for data in recipe.data.by_source.values():
        named += [data.source.path] if isinstance(data.source.path, str) else data.source.path
    paths = [re.split(r"[*?\[{]", path)[0] for path in named if path and storage.is_local(path)]
    return tuple(dict.fromkeys(storage.absolute(path) for path in paths if storage.local(path).exists()))


def absent_file(nodes: Sequence[Node]) -> str | None:
    for node in nodes:
        if node.answer.absent:
            return (
                f"{node.answer.absent[0]} exists here and not on {node.name}: put model and data where all nodes see "
                "them, or give a URI or a name on the Hugging Face Hub"
            )
    return None


def lacking(settings: ClusterSettings, each: Mapping[str, float], have: Mapping[str, float]) -> bool:
    """Whether the fewest workers and what they read through need more than this."""
    need = {name: amount * settings.fewest_workers for name, amount in each.items()}
    need["CPU"] = need.get("CPU", 0.0) + settings.free_cpus_needed
    return any(have.get(name, 0) < amount for name, amount in need.items())


def does_not_fit(settings: ClusterSettings, shape: str, names: Sequence[str], room: Sequence[int]) -> str | None:
    """There is enough in all, but not where it is needed."""
    wanted, strategy = settings.fewest_workers, settings.placement_strategy
    by_node = some_of([f"{name} {count}" for name, count in zip(names, room, strict=True)])
    if strategy == "STRICT_PACK" and max(room) < wanted:
        return (
            f"cluster.placement_strategy STRICT_PACK wants {wanted} workers of {shape} on one node, and the nodes have "
            f"room for {by_node}: choose PACK, or lower cluster.num_workers"
        )
    with_room = sum(count > 0 for count in room)
    if strategy == "STRICT_SPREAD" and with_room < wanted:
        return (
            f"cluster.placement_strategy STRICT_SPREAD wants {wanted} nodes with room for a worker of {shape}, and "
            f"there are {with_room} of {len(room)}: choose SPREAD, or lower cluster.num_workers"
        )
    if sum(room) < wanted:
        return (
            f"{wanted} workers of {shape} do not fit, since none can be spread over two nodes: room for {by_node}; "
            "lower cluster.cpus_per_worker or cluster.num_workers, or use larger nodes"
        )
    return None


def some_of(names: Sequence[str], shown: int = 4) -> str:
    more = [f"{len(names) - shown} more"] if len(names) > shown else []
    return ", ".join([*names[:shown], *more])
