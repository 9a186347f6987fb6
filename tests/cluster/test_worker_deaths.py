"""Who died and of what, as a person is told it when the workers are started again."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import ray
from ray.train import FailureConfig, RunConfig
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from mixdpo_ray.cluster.early_checkpoint import EarlyCheckpoint
from mixdpo_ray.cluster.events import Warned
from mixdpo_ray.cluster.job_queue import Ended
from mixdpo_ray.cluster.run_actor import RunActor
from mixdpo_ray.cluster.worker_deaths import LEAST_GRACE, TellsDeaths, who_died
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.training.listener import STORED_SECONDS
from mixdpo_ray.training.world import World

PEER = RuntimeError("[../gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")


def dead(text: str = "") -> Exception:
    error: Exception = WorkerHealthCheckFailedError("unhealthy", ray.exceptions.RayActorError(error_msg=text))
    return error


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ({1: dead()}, "worker 1 died (killed, or out of memory)"),
        ({0: PEER, 1: dead()}, "worker 1 died (killed, or out of memory)"),
        ({0: dead(), 2: dead()}, "workers 0, 2 died (killed, or out of memory)"),
        ({0: dead("The actor died because its node has died.")}, "worker 0 died (its machine has gone)"),
        ({0: dead("Task was killed due to the node running low on memory.")}, "worker 0 died (out of memory)"),
        ({0: dead("Perhaps: killed by SIGKILL by OOM killer due to high")}, "worker 0 died (killed, or out of memory)"),
        ({0: PEER}, "a worker died (killed, or out of memory)"),
        ({1: KeyError("b")}, "worker 1 failed (KeyError: 'b')"),
    ],
)
def test_the_dead_are_named_and_not_those_who_waited_for_them(failures: dict[int, Exception], said: str) -> None:
    assert who_died(failures) == said


@pytest.mark.parametrize(("seconds", "grace"), [([60.0, 90.0], 90.0), ([0.1, 0.2], LEAST_GRACE), ([], LEAST_GRACE)])
def test_workers_outlive_a_machines_deadline_as_long_as_a_checkpoint_takes(seconds: list[float], grace: float) -> None:
    context = SimpleNamespace(run_config=RunConfig(name="run", failure_config=FailureConfig()))
    reported = [{STORED_SECONDS: one} for one in seconds]
    TellsDeaths("queue", None, 1).after_report(context, reported, None)
    assert context.run_config.failure_config.preemption_grace_s == grace


def test_a_notice_that_comes_later_than_a_checkpoint_needs_is_said_to() -> None:
    early = EarlyCheckpoint(World(0, 2, 0, "cpu"), ClusterSettings(), {})
    soon = (time.time() + 30.4) * 1000
    assert early._in_time(soon) == "", "nobody knows yet how long one takes"
    early.save_seconds = 10.0
    assert early._in_time(soon) == early._in_time(None) == ""
    early.save_seconds = 95.0
    assert early._in_time(soon).startswith(" in 30 s, and the last checkpoint took 95 s: ")


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_starts_are_counted_and_what_the_job_itself_will_say_is_left_to_it() -> None:
    """Three starts at most: two deaths are told, and none after the job has ended."""
    actor = RunActor.remote()  # type: ignore[attr-defined]
    ray.get(actor.queue_job.remote("group", "run", b"", "mine"))
    callback = TellsDeaths("group", actor, starts=3)
    for _ in range(3):
        callback.after_exception(None, {1: dead()})
    told: list[Warned] = []
    while len(told) < 2:  # nobody waits until the actor has heard of it
        told += ray.get(actor.take.remote())
    assert {event.text for event in told} == {
        f"worker 1 died (killed, or out of memory); starting the workers again, {start} of 3" for start in (2, 3)
    }
    assert {event.job for event in told} == {"mine"}
    ray.get(actor.end_job.remote("group", 0, Ended({})))
    TellsDeaths("group", actor, starts=3).after_exception(None, {1: dead()})
    assert ray.get(actor.take.remote()) == []
