"""What every job checks before anything is loaded: seconds, where a mistake would otherwise show after minutes."""

from __future__ import annotations

from pathlib import Path

from ray._private import worker
from ray._private.state import state

from mixdpo_ray.cluster.connect import missing_resources, places, worker_resources
from mixdpo_ray.cluster.doctor.patient import Patient
from mixdpo_ray.cluster.doctor.surroundings import absent_file, does_not_fit, lacking
from mixdpo_ray.cluster.nodes import Node, storage_problem, survey, version_problem
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.errors import ResourceError, StorageError
from mixdpo_ray.recipe import Recipe


def preflight(recipe: Recipe, *, trains: bool = True) -> None:
    """Raise one line. Ray must be connected; on one machine this writes and reads one small file."""
    path = recipe.output.storage_path
    nodes = survey(path, Patient(recipe, Path()).local_paths)
    if problem := storage_problem(path, nodes):
        raise StorageError(problem)
    if problem := version_problem(nodes) or absent_file(nodes):
        raise ResourceError(problem)
    if trains and (problem := never_fits(recipe.cluster, nodes)):
        raise ResourceError(problem)


def never_fits(settings: ClusterSettings, nodes: list[Node]) -> str | None:
    """Nothing where waiting may help: nodes can join a cluster that others have started."""
    each = worker_resources(settings)
    most = state.get_max_resources_from_cluster_config()
    if most is not None:
        have = ", ".join(f"{most.get(name, 0):g} {name}" for name in each)
        if not lacking(settings, each, most):
            return None
        return (
            f"{settings.fewest_workers} workers need more than the autoscaler may ever bring ({have}): raise its "
            "limits, or lower cluster.num_workers or cluster.cpus_per_worker"
        )
    if not worker.global_worker.node.is_head():
        return None
    if missing := missing_resources(settings):
        return (
            f"this machine lacks {missing}: lower cluster.num_workers or cluster.cpus_per_worker, set "
            "cluster.use_gpu=false, or set RAY_ADDRESS to a cluster that has them"
        )
    shape = " + ".join(f"{amount:g} {name}" for name, amount in each.items())
    room = places([node.resources for node in nodes], each)
    return does_not_fit(settings, shape, [node.name for node in nodes], room)
