"""The actor that asks a judge: one for a job, many questions at a time, beside the driver.

It lies on the driver's node, where the key and the store are. While questions are asked the store is this process's: a
second job that asks the same model waits, and then finds what the first one has paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.folder_lock import FolderLock
from mixdpo_ray.cluster.gauges import judge_queue
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.errors import WorkersError
from mixdpo_ray.judging.asking import Asking, AskingProgress
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.judging.reply_store import ReplyStore
from mixdpo_ray.recipe.judge import PaidEndpointSettings
from mixdpo_ray.wording import duration_text

QUESTIONS_PER_CALL = 32
SECONDS_BETWEEN_LOOKS = 0.3


class Judge:
    """The driver's side of the actor."""

    def __init__(self, actor: Any, settings: PaidEndpointSettings):
        self.settings, self.progress = settings, AskingProgress()
        self._actor = actor

    @property
    def name(self) -> str:
        return self.settings.model

    def ask(self, questions: Sequence[ChatQuestion], *, title: str = "judge", unit: str = "verdict") -> list[ChatReply]:
        """Their answers or failures, in their order; what the store has costs nothing."""
        with _one_line_of_a_death(), plain_errors():
            if not ray.get(self._actor.begin.remote(wait=False)):
                waits = f"{title}: waiting for another job, which asks {self.settings.model}"
                say(waits, meanwhile=waits)
                ray.get(self._actor.begin.remote(wait=True))
            try:
                with Counter(title, unit, len(questions)) as counter:
                    return self._ask(list(questions), counter)
            finally:
                self._actor.end.remote()

    def _ask(self, questions: list[ChatQuestion], counter: Counter) -> list[ChatReply]:
        size = QUESTIONS_PER_CALL
        parts = iter([(first, questions[first : first + size]) for first in range(0, len(questions), size)])
        under_way: dict[Any, int] = {}
        replies: dict[int, list[ChatReply]] = {}
        error: ray.exceptions.RayTaskError | None = None
        before = self.progress.done
        while True:
            if error is None:
                most = 1 + 2 * self.settings.at_once // size  # the next ones are there when some are answered
                under_way |= {
                    self._actor.ask.remote(part): first for first, part in islice(parts, most - len(under_way))
                }
            if not under_way:
                break
            asked = list(under_way)
            for done in ray.wait(asked, num_returns=len(asked), timeout=SECONDS_BETWEEN_LOOKS)[0]:
                first = under_way.pop(done)
                try:
                    replies[first] = ray.get(done)
                except ray.exceptions.RayTaskError as failed:  # what is under way is waited for: it is paid
                    error = error or failed
            self.progress = ray.get(self._actor.progress.remote())
            counter.reach(min(self.progress.done - before, len(questions)), len(questions), self._told())
        if error is not None:
            raise error
        return [reply for first in sorted(replies) for reply in replies[first]]

    def _told(self) -> str:
        spent = self.progress.spent
        price, waits = spent.price(self.settings.prices), self.progress.waits
        told = f"{spent.calls:,} calls" + (f", price {price:,.4g}" if price else "")
        return f"{told}, the server asks to wait {duration_text(waits)}" if waits > 1 else told


@contextmanager
def judging(settings: PaidEndpointSettings, folder: str) -> Iterator[Judge]:
    """The judge, as long as the body runs. `folder`: of its answers (reply_store.reply_folder)."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class: Any = _JudgeActor
    actor = actor_class.options(scheduling_strategy=here).remote(settings, folder)
    try:
        yield Judge(actor, settings)
    finally:
        ray.kill(actor)


@ray.remote(num_cpus=0)
class _JudgeActor:
    def __init__(self, settings: PaidEndpointSettings, folder: str):
        """Nothing that can fail: the error of an actor that cannot be made has more than one line."""
        self.settings, self.folder = settings, folder
        self.queue = judge_queue()
        self.asking: Asking | None = None
        self.lock = ExitStack()
        self.askers = 0  # of this job, at the same time: they share the store, the limits and the budget
        self.one_begins = asyncio.Lock()

    async def begin(self, wait: bool) -> bool:
        """Whether the store is this process's now, for one asker more."""
        async with self.one_begins:
            there = self.askers > 0 or await self._take_store(wait)
            self.askers += there
            return there

    async def _take_store(self, wait: bool) -> bool:
        with ExitStack() as lock:
            if wait:
                await asyncio.to_thread(lock.enter_context, FolderLock(self.folder).or_wait())
            elif not lock.enter_context(FolderLock(self.folder).if_free()):
                return False
            if self.asking is None:
                self.asking = Asking(self.settings, ReplyStore(self.folder))
            else:
                await asyncio.to_thread(self.asking.store.refresh)
            self.lock = lock.pop_all()
            return True

    async def ask(self, questions: Sequence[ChatQuestion]) -> list[ChatReply]:
        assert self.asking is not None
        return await self.asking.ask(questions)

    async def progress(self) -> AskingProgress:
        self._show_queue()
        return AskingProgress() if self.asking is None else self.asking.progress

    def _show_queue(self) -> None:
        waiting = 0 if self.asking is None else self.asking.waiting
        self.queue.set(waiting, {"model": self.settings.model})

    async def end(self) -> None:
        self._show_queue()
        self.askers -= 1
        if not self.askers:
            self.lock.close()


@contextmanager
def _one_line_of_a_death() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayActorError:
        raise WorkersError(
            "the process that asks the judge died (killed, or out of memory): repeat; what was answered is kept"
        ) from None
