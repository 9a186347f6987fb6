"""How many trials fit at a time: counted before the first one starts, for Ray would let them wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings

DRIVER_CPUS = 0.1  # of a trial's own process, which starts the workers and waits


@dataclass(frozen=True)
class Seats:
    at_once: int
    arithmetic: str


@dataclass(frozen=True)
class Counted:
    """What takes a seat, and the settings that say how many and how large."""

    what: str
    at_once: str
    workers: str


TRIALS = Counted("trial", "tune.max_concurrent_trials", "tune.workers_per_trial")
ARMS = Counted("arm", "compare.at_once", "cluster.num_workers")


def trial_needs(cluster: ClusterSettings, gpu: bool) -> dict[str, float]:
    """Workers, the CPU that each of them reads through, and the trial's own process."""
    needs = {"CPU": cluster.cpus_needed + DRIVER_CPUS}
    if gpu:
        needs["GPU"] = float(cluster.fewest_workers)
    for name, amount in cluster.resources_per_worker.items():
        needs[name] = needs.get(name, 0.0) + amount * cluster.fewest_workers
    return needs


def count_seats(
    cluster: ClusterSettings,
    gpu: bool,
    have: Mapping[str, float],
    wanted: int | None,
    *,
    cores: int | None = None,
    counted: Counted = TRIALS,
) -> Seats:
    """`cores`: of this machine, where Ray was started here and told to count more."""
    needs = trial_needs(cluster, gpu)
    fits = min(int(have.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items() if amount)
    each = (
        f"each {counted.what} takes {cluster.fewest_workers} x {cluster.cpus_per_worker:g} CPU to train, "
        f"{cluster.free_cpus_needed:g} CPU to read pairs and {DRIVER_CPUS:g} CPU for the process that leads it"
    )
    others = [f"{needs[name]:g} {name}" for name in needs if name != "CPU"]
    there = ", ".join(f"{have.get(name, 0.0):g} {name}" for name in needs)
    has = "the cluster has" if cores is None else f"Ray counts more CPUs here than the machine's {cores}:"
    arithmetic = f"{', '.join([each, *others])}; {has} {there}: {fits} at a time"
    if fits < (wanted or 1):
        raise ResourceError(
            f"{arithmetic}, fewer than {wanted or 1} ({counted.at_once}): they would wait for each other for ever; "
            f"lower it, {counted.workers} or cluster.cpus_per_worker, or add nodes"
        )
    return Seats(min(fits, wanted or fits), arithmetic)


def cpus_to_start_with(cluster: ClusterSettings, wanted: int | None) -> float:
    """CPUs of a Ray of this machine alone, where they are seats: for as many trials as it has cores to train them."""
    cores = os.cpu_count() or 1
    at_once = wanted or max(1, int(cores / (cluster.fewest_workers * cluster.cpus_per_worker)))
    return at_once * trial_needs(cluster, gpu=False)["CPU"]
