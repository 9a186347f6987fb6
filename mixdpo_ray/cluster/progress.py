"""What a person watches: workers tell a small actor, the driver draws a bar from it (lines, without a terminal).

Reports to Ray come with checkpoints only, minutes apart. The actor costs no CPU, and a step is one message that
nobody waits for.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from tqdm import tqdm

from mixdpo_ray.cluster.hang_detector import Beat, WakingClock, seconds_between_beats
from mixdpo_ray.cluster.job_queue import Ended, JobQueue, Waiting

SECONDS_BETWEEN_LINES = 10.0
QUIET_LOOKS = 20  # 6 s without a word: a node may have died
Event = tuple[str, Any]  # (kind, content): phase, step, evaluation, checkpoint, warning


@ray.remote(num_cpus=0, max_concurrency=100_000)  # every idle worker waits in a call of its own
class RunActor:
    """Also the run's lock inside a cluster: its name can be taken once."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.queues: defaultdict[str, JobQueue] = defaultdict(JobQueue)  # of worker groups: a study has several

    def tell(self, kind: str, content: Any) -> None:
        self.events.append((kind, content))

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def queue_job(self, queue: str, run: str, job: bytes) -> int | None:
        """A training is with one group at a time: the process that handed it to another group before has died."""
        for lost in [name for name, other in self.queues.items() if name != queue and other.holds(run)]:
            self.abandon_queue(lost)
        return self.queues[queue].put(run, job)

    def hold_room(self, queue: str, room: PlacementGroup) -> None:
        self.queues[queue].room = room

    def hold_worker(self, queue: str, rank: int, worker: Any) -> None:
        self.queues[queue].workers[rank] = worker

    def close_queue(self, queue: str) -> None:
        self.queues[queue].close()

    def abandon_queue(self, queue: str) -> None:
        """Its workers are no more. Their room is free again, unless nobody was left to give it back."""
        self.queues[queue].abandon()
        if self.queues[queue].room is not None:
            remove_placement_group(self.queues[queue].room)

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
                self.tell("warning", f"{verdict}: starting the workers again")
            for worker in frozen:
                ray.kill(worker)

    def hang_of(self, queue: str) -> str | None:
        return self.queues[queue].hang


class Progress:
    """The progress of work that the driver counts itself: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, unit: str, total: int = 0):
        self.title, self.unit, self.total, self.done = title, unit, total, 0
        self.last_line = time.monotonic()
        off = not sys.stderr.isatty()
        self.bar = tqdm(total=total or None, desc=title, unit=unit, dynamic_ncols=True, disable=off, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        self.reach(self.done + count, self.total)

    def reach(self, done: int, total: int, doing: str = "") -> None:
        self.done, self.total = done, total
        self.bar.n, self.bar.total = done, total
        self.bar.set_postfix_str(doing, refresh=True)
        if self.bar.disable and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            print(
                f"{self.title}: {doing}{', ' if doing else ''}{done}/{total} {self.unit}s", file=sys.stderr, flush=True
            )


class Watched(Protocol):
    def show(self, kind: str, content: Any) -> None: ...
    def close(self) -> None: ...


class Display:
    """What a person sees of a training run: one bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, steps: int):
        self.bar = tqdm(total=steps, desc=title, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty())
        self.steps, self.title, self.text = steps, title, ""
        self.last_line, self.began, self.first_step, self.done = 0.0, time.time(), 0, 0
        self.accuracy: float | None = None

    def show(self, kind: str, content: Any) -> None:
        if kind == "step":
            self._step(content)
        elif kind == "evaluation" and "eval_rewards/accuracies" in content:
            self.accuracy = content["eval_rewards/accuracies"]
        elif kind == "phase":
            self._phase(content)
        elif kind == "warning":
            self.line(f"warning: {content}")

    def line(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()

    def _phase(self, text: str) -> None:
        if text == self.text:
            return
        self.text = text
        self.bar.set_description(f"{self.title}: {text}")
        if self.bar.disable:
            self.line(f"{self.title}: {text}")

    def _step(self, metrics: dict[str, Any]) -> None:
        done = metrics["step"] + 1
        if not self.first_step or done <= self.done:  # at the start, and where workers were started again
            self.first_step, self.began = done, time.time()
        self.done = done
        shown = {"loss": f"{metrics['loss']:.4f}", "pairs/s": f"{metrics['perf/pairs_per_second']:.1f}"}
        if metrics.get("rewards/accuracies") is not None:
            shown["accuracy"] = f"{metrics['rewards/accuracies']:.2f}"
        if self.accuracy is not None:
            shown["held out"] = f"{self.accuracy:.3f}"
        self.bar.set_description(f"{self.title}: {metrics['stage']}", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        now = time.time()
        if not self.bar.disable:
            # neither the start of the workers nor what a resumed run did before is part of its speed
            self.bar.initial, self.bar.start_t = self.first_step, self.began
            self.bar.n = done
            self.bar.refresh()
        elif now - self.last_line > SECONDS_BETWEEN_LINES or done == self.steps:
            self.last_line = now
            values = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.line(f"{self.title}: {metrics['stage']} {done}/{self.steps}  {values}  {self._eta(done, now)}")

    def _eta(self, done: int, now: float) -> str:
        if done == self.first_step:
            return ""
        seconds = (now - self.began) / (done - self.first_step) * (self.steps - done)
        return f"ETA {int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def watching(run_actor: Any, display: Watched, missing: Callable[[], str]) -> Iterator[None]:
    """Draw what the run's actor hears while the body runs; where it hears nothing, what the cluster lacks."""
    finished = threading.Event()

    def draw() -> bool:
        events = ray.get(run_actor.take.remote())
        for kind, content in events:
            display.show(kind, content)
        return bool(events)

    def follow() -> None:
        quiet = 0
        while not finished.wait(0.3):
            quiet = 0 if draw() else quiet + 1
            if quiet and quiet % QUIET_LOOKS == 0 and (lacking := missing()):
                display.show("phase", f"waiting for {lacking}")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        draw()
        display.close()
