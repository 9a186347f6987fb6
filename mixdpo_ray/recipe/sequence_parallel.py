"""Which recipes can have deepspeed.sequence_parallel, told before anything is loaded."""

from __future__ import annotations

from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.settings import ModelSettings


def unshared_rows(ranks: int, model: ModelSettings, cluster: ClusterSettings) -> str | None:
    """The reason why so many workers cannot share rows, if any."""
    named = f"deepspeed.sequence_parallel {ranks}"
    if ranks == 1:
        return None
    if not model.packing:
        return f"{named} cuts packed rows, and model.packing is off: set it to auto or on"
    if cluster.elastic:
        few, most = cluster.fewest_workers, cluster.most_workers
        return f"{named} needs one number of workers, and cluster.num_workers is any of {few} to {most}: give {most}"
    return not_divided(ranks, "cluster.num_workers", cluster.most_workers)


def not_divided(ranks: int, setting: str, workers: int) -> str | None:
    if not workers % ranks:
        return None
    fitting = max(1, workers // ranks) * ranks
    return f"deepspeed.sequence_parallel {ranks} does not divide {setting} {workers}: give {fitting} of them"
