"""Rating by the recipe's judge (answers.judge), from 1 to 10: a server, an API, a model of this cluster's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.benchmarks.benchmark import JudgeSampling
from mixdpo_ray.benchmarks.single_rating import (
    HIGHEST,
    LOWEST,
    RATING_CRITERION,
    Reading,
    expected_rating,
    marked_rating,
    rating_question,
)
from mixdpo_ray.benchmarks.templates import JudgeMessage
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.raters.rater import JudgeWords, Rater, RaterContext, UnratedAnswer

SAMPLING: dict[Reading, JudgeSampling] = {
    "mark": JudgeSampling(max_tokens=1024, temperature=0.0),
    "expected": JudgeSampling(max_tokens=2, temperature=0.0, top_logprobs=20),  # 10 may be two tokens
}


class JudgeRater(Rater):
    """The rating of the recipe's judge, from 1 to 10."""

    needs: ClassVar[str] = "answers.judge"
    lowest_and_highest: ClassVar[tuple[float, float] | None] = (LOWEST, HIGHEST)

    reading: Reading = Field(
        "mark", description="mark: the rating that the judge writes; expected: its mean over the log-probs of the ten"
    )
    criterion: str = Field(
        RATING_CRITERION,
        description="What makes an answer good, said to the judge in a sentence or two",
    )
    max_tokens: int | None = Field(None, ge=1, description="Longest reply; 1024 with a mark, 2 where it is expected")

    @property
    def sampling(self) -> JudgeSampling:
        own = SAMPLING[self.reading]
        return JudgeSampling(self.max_tokens or own.max_tokens, own.temperature, own.top_logprobs)

    def rate(self, name: str, answers: Sequence[UnratedAnswer], context: RaterContext) -> list[JudgeVerdict]:
        asked = [self._question(answer) for answer in answers]
        replies = context.judged(name, [messages for _, messages in asked], self.sampling)
        return [self.read(number, reply) for (number, _), reply in zip(asked, replies, strict=True)]

    def questions(self, answers: Sequence[UnratedAnswer]) -> list[tuple[JudgeMessage, ...]]:
        return [self._question(answer)[1] for answer in answers]

    def read(self, number: str, reply: JudgeWords) -> JudgeVerdict:
        if reply.failure:
            return JudgeVerdict.unreadable("no_reply")
        if self.reading == "expected":
            return expected_rating(reply.text, reply.tokens)
        return marked_rating(number, JudgeReply(reply.text, cut_off=reply.cut_off))

    def _question(self, answer: UnratedAnswer) -> tuple[str, tuple[JudgeMessage, ...]]:
        return rating_question(self.criterion, conversation_text(answer.messages), answer.text, self.reading)


def conversation_text(messages: Sequence[Message]) -> str:
    """One turn is shown as it is; of several each begins with who speaks."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
