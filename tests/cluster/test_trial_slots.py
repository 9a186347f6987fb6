"""How many trials fit at a time, in numbers that can be checked by hand."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mixdpo_ray.cluster.trial_slots import ARMS, count_seats, cpus_to_start_with, trial_needs
from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings


def seats(have: dict[str, float], wanted: int | None = None, gpu: bool = False, **cluster: Any) -> int:
    return count_seats(ClusterSettings(**cluster), gpu, have, wanted).at_once


def refusal(have: dict[str, float], wanted: int | None = None, gpu: bool = False, **cluster: Any) -> str:
    with pytest.raises(ResourceError) as caught:
        count_seats(ClusterSettings(**cluster), gpu, have, wanted)
    return str(caught.value)


def test_a_trial_needs_its_workers_what_they_read_through_and_a_little_to_wait() -> None:
    """2 workers x 3 CPUs, 2 to read, 0.1 for the trial's own process: 8.1."""
    needs = trial_needs(ClusterSettings(num_workers=2, cpus_per_worker=3), gpu=False)
    assert needs == {"CPU": pytest.approx(8.1)}


def test_a_trial_on_gpus_needs_one_for_each_worker_and_further_resources_too() -> None:
    cluster = ClusterSettings(num_workers=4, resources_per_worker={"accelerator_type:H100": 0.5})
    assert trial_needs(cluster, gpu=True) == {"CPU": pytest.approx(8.1), "GPU": 4.0, "accelerator_type:H100": 2.0}


def test_as_many_trials_run_at_a_time_as_fit() -> None:
    """Each of 1 worker takes 1 + 1 + 0.1 = 2.1 CPUs: in 4 fits 1, in 4.2 fit 2, in 64 fit 30."""
    assert seats({"CPU": 4}, num_workers=1) == 1
    assert seats({"CPU": 4.2}, num_workers=1) == 2
    assert seats({"CPU": 64}, num_workers=1) == 30


def test_the_scarcest_resource_decides() -> None:
    """64 CPUs would hold 15 trials of 4.1; 8 GPUs hold 4 of 2; 3 licences hold 1 of 2."""
    have = {"CPU": 64.0, "GPU": 8.0, "licence": 3.0}
    assert seats(have, gpu=False) == 15
    assert seats(have, gpu=True) == 4
    assert seats(have, gpu=True, resources_per_worker={"licence": 1}) == 1


def test_no_more_trials_run_than_were_asked_for() -> None:
    assert seats({"CPU": 64}, wanted=3, num_workers=1) == 3
    assert seats({"CPU": 4.2}, wanted=2, num_workers=1) == 2


def test_the_arithmetic_is_said_with_all_its_numbers() -> None:
    cluster = ClusterSettings(num_workers=2, cpus_per_worker=1.5, resources_per_worker={"licence": 1})
    assert count_seats(cluster, True, {"CPU": 32, "GPU": 4, "licence": 8}, None).arithmetic == (
        "each trial takes 2 x 1.5 CPU to train, 2 CPU to read pairs and 0.1 CPU for the process that leads it, 2 GPU, "
        "2 licence; "
        "the cluster has 32 CPU, 4 GPU, 8 licence: 2 at a time"
    )


def test_a_study_whose_trials_would_wait_for_each_other_is_refused_with_the_numbers() -> None:
    assert refusal({"CPU": 8}, wanted=2) == (
        "each trial takes 2 x 1 CPU to train, 2 CPU to read pairs and 0.1 CPU for the process that leads it; the "
        "cluster has 8 CPU: 1 at a time, fewer than 2 (tune.max_concurrent_trials): they would wait for each other "
        "for ever; lower it, tune.workers_per_trial or cluster.cpus_per_worker, or add nodes"
    )


def test_seats_are_told_from_cores_and_arms_from_trials() -> None:
    cluster = ClusterSettings(num_workers=1)
    assert "; Ray counts more CPUs here than the machine's 2: 5 CPU: 2 at a time" in (
        count_seats(cluster, False, {"CPU": 5}, None, cores=2).arithmetic
    )
    with pytest.raises(ResourceError, match=r"each arm takes .* fewer than 2 \(compare.at_once\)"):
        count_seats(cluster, False, {"CPU": 3}, 2, counted=ARMS)


@pytest.mark.parametrize(
    ("have", "gpu", "cluster", "expected"),
    [
        ({"CPU": 4}, False, {}, "the cluster has 4 CPU: 0 at a time, fewer than 1"),
        ({"CPU": 64}, True, {}, "the cluster has 64 CPU, 0 GPU: 0 at a time, fewer than 1"),
        ({"CPU": 64, "GPU": 1}, True, {}, "the cluster has 64 CPU, 1 GPU: 0 at a time, fewer than 1"),
        ({"CPU": 64}, False, {"resources_per_worker": {"TPU": 1}}, "the cluster has 64 CPU, 0 TPU: 0 at a time"),
        ({}, False, {}, "the cluster has 0 CPU: 0 at a time, fewer than 1"),
    ],
    ids=str,
)
def test_a_cluster_that_holds_no_trial_at_all_is_refused(
    have: dict[str, float], gpu: bool, cluster: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(have, gpu=gpu, **cluster)


def test_a_resource_that_is_asked_for_with_zero_binds_nobody() -> None:
    assert seats({"CPU": 64}, num_workers=1, resources_per_worker={"licence": 0}) == 30


@pytest.mark.parametrize("wanted", range(1, 12))
@pytest.mark.parametrize("cpus_per_worker", [1, 0.3, 2.7])
def test_a_ray_started_for_the_study_holds_the_trials_it_was_started_for(wanted: int, cpus_per_worker: float) -> None:
    cluster = ClusterSettings(num_workers=1, cpus_per_worker=cpus_per_worker)
    assert seats({"CPU": cpus_to_start_with(cluster, wanted)}, wanted, **cluster.model_dump()) == wanted


def test_without_a_wish_a_laptop_trains_as_many_trials_as_it_has_cores_and_at_least_one() -> None:
    """What reads and waits shares the cores: it is idle most of the time."""
    cores = os.cpu_count() or 1
    assert cpus_to_start_with(ClusterSettings(num_workers=1), None) == pytest.approx(cores * 2.1)
    many = ClusterSettings(num_workers=2 * cores)
    assert cpus_to_start_with(many, None) == pytest.approx(4 * cores + 0.1)
