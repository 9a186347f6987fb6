"""The run's actor: it hears how a training goes, queues jobs for workers, and its name is the run's lock in a cluster.

Reports to Ray come with checkpoints only, minutes apart. The actor costs no CPU, and an event is one message that
nobody waits for.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray.cluster.events import Event, Warned
from mixdpo_ray.cluster.gauges import TrainingGauges
from mixdpo_ray.cluster.hang_detector import Beat, WakingClock, seconds_between_beats
from mixdpo_ray.cluster.job_queue import Ended, JobQueue, Label, Waiting
from mixdpo_ray.errors import RunConflictError

NAMESPACE = "mixdpo_ray"


@ray.remote(num_cpus=0, max_concurrency=100_000)  # every idle worker waits in a call of its own
class RunActor:
    def __init__(self, folder: str = "") -> None:
        """`folder`: of what the run is."""
        self.gauges = TrainingGauges(folder)
        self.events: list[Event] = []
        self.told_once: set[str] = set()
        self.queues: defaultdict[str, JobQueue] = defaultdict(JobQueue)  # of worker groups: a study has several
        self.rooms: dict[str, PlacementGroup] = {}  # that Ray keeps for them, also after the death of who started them

    def tell(self, event: Event) -> None:
        if isinstance(event, Warned) and event.once:
            if event.text in self.told_once:
                return
            self.told_once.add(event.text)
        self.gauges.observe(event)
        self.events.append(event)

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def queue_job(self, queue: str, run: str, job: bytes, label: Label) -> int | None:
        """A training is with one group at a time: the process that handed it to another group before has died."""
        for lost in [name for name, other in self.queues.items() if name != queue and other.holds(run)]:
            self.abandon_queue(lost)
        return self.queues[queue].put(run, job, label)

    def hold_room(self, queue: str, room: PlacementGroup) -> None:
        self.rooms[queue] = room

    def hold_worker(self, queue: str, rank: int, worker: Any) -> None:
        self.queues[queue].hold(rank, worker)

    def close_queue(self, queue: str) -> None:
        self.queues[queue].close()

    def abandon_queue(self, queue: str) -> None:
        """Its workers are no more. Their room is free again, unless nobody was left to give it back."""
        self.queues[queue].abandon()
        if queue in self.rooms:
            remove_placement_group(self.rooms[queue])

    async def next_job(self, queue: str, after: int) -> Waiting | None:
        return await self.queues[queue].next(after)

    def end_job(self, queue: str, number: int, ended: Ended, *, for_good: bool = False) -> None:
        self.queues[queue].end(number, ended, for_good=for_good)

    async def ended(self, queue: str, number: int) -> Ended | None:
        return await self.queues[queue].ended(number)

    def stopped(self, queue: str) -> bool:
        return self.queues[queue].stopped

    def observe_beat(self, queue: str, number: int, beat: Beat, patience: float) -> tuple[str | None, bool]:
        jobs = self.queues[queue]
        if jobs.clock is None:
            seconds = seconds_between_beats(patience)
            jobs.clock = WakingClock(longest_gap=3 * seconds)
            jobs.watch = asyncio.create_task(self._watch(jobs, jobs.clock, seconds))
        return jobs.observe(number, beat, patience, jobs.clock.now())

    async def _watch(self, jobs: JobQueue, clock: WakingClock, seconds: float) -> None:
        """End workers that hang and do not even answer: those that do end by themselves, and the frozen with them."""
        while jobs.any_left:
            await asyncio.sleep(seconds)
            verdict, frozen = jobs.judge(clock.now())
            if verdict:
                self.tell(Warned(f"{verdict}: starting the workers again", job=jobs.label))
            for worker in frozen:
                ray.kill(worker)

    def tell_death(self, queue: str, text: str) -> None:
        """Why the workers are started again, unless it was told already: a hang, or an error that ends the job."""
        jobs = self.queues[queue]
        if not (jobs.stopped or jobs.hang) and len(jobs.ends) < len(jobs.jobs):
            self.tell(Warned(text, job=jobs.label))
            jobs.forget_group()  # nobody hangs while machines for new workers are waited for

    def hang_of(self, queue: str) -> str | None:
        return self.queues[queue].hang


def claim_run(run: str) -> Any:
    """The actor of a run that nobody else uses. A killed run's actor lives on for some seconds.

    It lies on the driver's node: no other node's death may take it away.
    """
    from mixdpo_ray.bar import going_on  # not in the actor's own process

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class: Any = RunActor  # a Ray actor class: its own attributes are not the plain class's
    name = f"board-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    for attempt in range(20):
        try:
            return actor_class.options(name=name, namespace=NAMESPACE, scheduling_strategy=here).remote(run)
        except ValueError:
            if not attempt:
                going_on(f"waiting for what a killed job left of {run}")
            time.sleep(1)
    raise RunConflictError(f"{run} is in use by another job of this cluster: wait for it, or choose another name")
