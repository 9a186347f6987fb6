"""Questions to a server whose answers are kept: what the store lacks is asked, and on disk before more is.

A question is one of the `at_once` until its answer is stored. So after a kill at most so many are paid
again, and never one that was stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mixdpo_ray.errors import MixDPOError, StorageError
from mixdpo_ray.judging.budget import NOTHING, Budget, Cost
from mixdpo_ray.judging.client import EndpointClient
from mixdpo_ray.judging.question import ChatQuestion, RequestBody, answer_address, request_body
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.judging.reply_store import ReplyStore
from mixdpo_ray.recipe.judge import PaidEndpointSettings


@dataclass(frozen=True)
class AskingProgress:
    answered: int = 0  # of this job
    failed: int = 0
    cached: int = 0  # that cost nothing
    spent: Cost = NOTHING
    waits: float = 0.0  # seconds that the server still wants to be left alone

    @property
    def done(self) -> int:
        return self.answered + self.failed + self.cached


class Asking:
    def __init__(self, settings: PaidEndpointSettings, store: ReplyStore):
        """Raises an error where the key is not there."""
        self.settings, self.store = settings, store
        self.client = EndpointClient(settings, Budget(settings.budget, settings.prices))
        self._free = asyncio.Semaphore(settings.at_once)
        self._open: dict[str, asyncio.Task[ChatReply]] = {}
        self._unsaved: list[tuple[str, ChatReply]] = []
        self._saving = asyncio.Lock()
        self._answered = self._failed = self._cached = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    @property
    def waiting(self) -> int:
        """Questions that have no answer yet."""
        return len(self._open)

    @property
    def progress(self) -> AskingProgress:
        budget, pause = self.client.budget, self.client.pause
        return AskingProgress(self._answered, self._failed, self._cached, budget.spent, pause.seconds_left)

    async def ask(self, questions: Sequence[ChatQuestion]) -> list[ChatReply]:
        """Their answers or failures, in their order. An error comes when what was under way is stored."""
        tasks = [self._task(question) for question in questions]
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [reply for reply in replies if isinstance(reply, BaseException)]
        if errors:
            raise next((error for error in errors if isinstance(error, MixDPOError)), errors[0])
        return [reply for reply in replies if isinstance(reply, ChatReply)]

    def _task(self, question: ChatQuestion) -> asyncio.Task[ChatReply]:
        """The question's, or the one of the same question that is asked already."""
        body = request_body(question, self.settings)
        address = answer_address(body, question.draw)
        if address not in self._open:
            task = asyncio.get_running_loop().create_task(self._answer(address, body))
            self._open[address] = task
            task.add_done_callback(lambda _: self._open.pop(address))
        return self._open[address]

    async def _answer(self, address: str, body: RequestBody) -> ChatReply:
        if address in self.store and (stored := self.store.get(address)):
            self._cached += 1
            return stored
        async with self._free:
            reply = await self.client.ask(body)
            await self._save(address, reply)
        if reply.failure:
            self._failed += 1
        else:
            self._answered += 1
        return reply

    async def _save(self, address: str, reply: ChatReply) -> None:
        """Whoever saves takes along what came while another write was under way."""
        self._unsaved.append((address, reply))
        async with self._saving:
            unsaved, self._unsaved = self._unsaved, []
            try:
                if unsaved:
                    await asyncio.to_thread(self.store.append, unsaved)
            except StorageError as error:  # nothing more is paid that cannot be kept
                self._unsaved = [*unsaved, *self._unsaved]
                self.client.stop(str(error))
                raise
