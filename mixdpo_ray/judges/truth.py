"""The judge `playground`: it knows the true quality of every answer, costs nothing and needs no server.

It reads the same questions as any other judge, so that a playground tries all that a judged model goes through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from mixdpo_ray.judging.asking import AskingProgress
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.playground.truth import truthful_logps, truthful_reply
from mixdpo_ray.recipe.recipe import Recipe


class TruthJudge:
    name = "the playground's true quality"

    @classmethod
    @contextmanager
    def of_recipe(cls, recipe: Recipe) -> Iterator[Self]:
        yield cls()

    def __init__(self) -> None:
        self.progress = AskingProgress()

    def ask(self, questions: Sequence[ChatQuestion], *, title: str = "judge", unit: str = "verdict") -> list[ChatReply]:
        replies = [_reply(question) for question in questions]
        failed = sum(bool(reply.failure) for reply in replies)
        before = self.progress
        self.progress = replace(before, answered=before.answered + len(replies) - failed, failed=before.failed + failed)
        return replies


def _reply(question: ChatQuestion) -> ChatReply:
    text, logps = truthful_reply(question.messages), None
    if text is None:
        return ChatReply.failed("it shows no prompt of a playground")
    if question.top_logprobs:
        logps = truthful_logps(question.messages)
    return ChatReply(text, finish="stop", tokens=() if logps is None else ((text, logps),))
