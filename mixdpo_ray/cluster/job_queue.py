"""The jobs of one worker group, in the order in which it trains them, and what became of each.

Lives in the run's actor. Every rank asks for the next job by itself and is kept waiting until there is one; a job
is the current one until rank 0 has told its end, so a group whose workers were started again continues with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.cluster.hang_detector import Beat, HangDetector, WakingClock
from mixdpo_ray.errors import MixDPOError

Label = str | int | None
Waiting = tuple[int, bytes]  # a job's number, and the job, which the run's actor never opens


@dataclass(frozen=True)
class Ended:
    """How a job ended: with the summary of rank 0, or with the reason why it never will."""

    summary: dict[str, Any] | None = None
    error: MixDPOError | None = None

    def result(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return dict(self.summary or {})


class JobQueue:
    def __init__(self) -> None:
        self.jobs: list[bytes] = []
        self.runs: list[str] = []  # the folder of each
        self.labels: list[Label] = []  # whose events are whose
        self.ends: list[Ended] = []
        self.open = True  # whether more may come
        self.stopped = False  # by an error that would only come again
        self.abandoned = False  # by its group, which is no more
        self.hang_detector: HangDetector | None = None  # of the current job
        self.clock: WakingClock | None = None  # of its verdicts, from the first beat on
        self.watch: asyncio.Task[None] | None = None  # which asyncio itself would forget
        self.workers: dict[int, Any] = {}  # by rank, of the group that is at work
        self.hanging: dict[int, Any] = {}  # of the group that was found to hang: those who may have to be ended
        self.changed = asyncio.Event()

    def put(self, run: str, job: bytes, label: Label = None) -> int | None:
        """Its number; None where nobody would train it any more."""
        if not self.open:
            return None
        self.jobs.append(job)
        self.runs.append(run)
        self.labels.append(label)
        self._change()
        return len(self.jobs) - 1

    def close(self) -> None:
        self.open = False
        self._change()

    def abandon(self) -> None:
        """Whoever waits for the end of a job is told that there is none."""
        self.abandoned = True
        self.close()

    async def next(self, after: int) -> Waiting | None:
        """The current job, once it is another one than the last that this rank has trained; None: go home."""
        await self._until(lambda: not self.any_left or after < len(self.ends) < len(self.jobs))
        current = len(self.ends)
        return (current, self.jobs[current]) if self.any_left else None

    def end(self, number: int, ended: Ended, *, for_good: bool = False) -> None:
        """Only the first word about a job counts. `for_good`: the workers cannot go on to the next one."""
        if number == len(self.ends):
            self.ends.append(ended)
            self.jobs[number], self.hang_detector = b"", None
            if for_good:
                self.open, self.stopped, self.jobs = False, True, self.jobs[: len(self.ends)]
            self._change()

    async def ended(self, number: int) -> Ended | None:
        """None: the group has gone before it."""
        await self._until(lambda: self.abandoned or number < len(self.ends))
        return self.ends[number] if number < len(self.ends) else None

    def observe(self, number: int, beat: Beat, patience: float, now: float) -> tuple[str | None, bool]:
        """Whether the job hangs, and whether this is the first rank to be told so."""
        if number != len(self.ends):  # a late sign of a job that has ended
            return None, False
        self.hang_detector = self.hang_detector or HangDetector(patience)
        before, verdict = self.hang_detector.verdict, self.hang_detector.observe(beat, now)
        self._end_group(verdict, before)
        return verdict, before is None

    @property
    def label(self) -> Label:
        """Whose events those of the current job are."""
        return self.labels[len(self.ends)]

    def hold(self, rank: int, worker: Any) -> None:
        """A worker that has just started. What was heard of the group before it says nothing about this one."""
        self.workers[rank] = worker
        self.forget_group()

    def forget_group(self) -> None:
        """The workers have died: they do not answer, and hang no more."""
        if self.hang_detector is not None:
            self.hang_detector.forget()

    def judge(self, now: float) -> tuple[str | None, list[Any]]:
        """A verdict that nobody was told yet, and the workers that are to be ended because they will not do so."""
        detector = self.hang_detector
        if detector is None:
            return None, []
        before, verdict = detector.verdict, detector.judge(now)
        self._end_group(verdict, before)
        frozen = [self.hanging.pop(rank) for rank in detector.silent(now) if rank in self.hanging]
        return (verdict if before is None else None), frozen

    def _end_group(self, verdict: str | None, before: str | None) -> None:
        """Know which workers hang: those that come next do not."""
        if verdict is not None and before is None:
            self.hanging, self.workers = self.workers, {}

    def holds(self, run: str) -> bool:
        """Whether this training is still to be ended here."""
        return not self.abandoned and run in self.runs[len(self.ends) :]

    @property
    def hang(self) -> str | None:
        """The hang, if any, of the workers heard last: one that a restart has cured explains no later failure."""
        return None if self.hang_detector is None else self.hang_detector.verdict

    @property
    def any_left(self) -> bool:
        return self.open or len(self.ends) < len(self.jobs)

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self.changed.wait()
