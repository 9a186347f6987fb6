"""What every rater is: frozen settings, and how answers are rated through what a cluster has for it.

A rating is a verdict with a value or with the reason why there is none; a missing one is never a number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

from mixdpo_ray.benchmarks.benchmark import JudgeSampling
from mixdpo_ray.benchmarks.templates import JudgeMessage
from mixdpo_ray.benchmarks.verdict import UNREADABLE, JudgeVerdict
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.pair import Message, content_hash, prompt_hash
from mixdpo_ray.pairs.template_inputs import NO_INPUTS, TemplateInputs
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.settings import ModelSettings

UNRATED: dict[str, str] = {
    **REASONS,
    **UNREADABLE,
    "no_playground_prompt": "the prompt is none of a playground's, so that nobody knows the answer's true quality",
}


@dataclass(frozen=True)
class UnratedAnswer:
    messages: tuple[Message, ...]  # of the prompt
    text: str
    template: TemplateInputs = NO_INPUTS

    @cached_property
    def answer_id(self) -> str:
        return content_hash([prompt_hash(self.messages, self.template), self.text])


class JudgeWords(Protocol):
    """What a judge answered."""

    @property
    def text(self) -> str: ...

    @property
    def tokens(self) -> Sequence[tuple[str, Mapping[str, float]]]:
        """Its tokens, each with the log-probs of the likeliest in its stead, where these were asked for."""

    @property
    def cut_off(self) -> bool: ...

    @property
    def failure(self) -> str:
        """Why there is no answer."""


class RaterContext(Protocol):
    """What a cluster has for raters: each number is computed once, each question asked once."""

    def rewards(
        self, name: str, model: ModelSettings, max_length: int, batch_size: int, answers: Sequence[UnratedAnswer]
    ) -> list[float]:
        """Those of a sequence-classification model, by the rater of this name."""

    def logps(
        self, setting: str, path: str | None, revision: str | None, batch_size: int, answers: Sequence[UnratedAnswer]
    ) -> list[float | str]:
        """Sums of log-probs over the answers' tokens, or the reason why an answer has none.

        `path`: of a run, a checkpoint, a folder or a model of the Hub, which the setting names; none is model.path.
        """

    def judged(
        self, name: str, questions: Sequence[tuple[JudgeMessage, ...]], sampling: JudgeSampling
    ) -> Sequence[JudgeWords]:
        """The replies of the recipe's judge, in their order."""


class Rater(Settings, ABC):
    needs: ClassVar[str]
    needs_cluster: ClassVar[bool] = True
    lowest_and_highest: ClassVar[tuple[float, float] | None] = None  # of its scale, where it has one

    @abstractmethod
    def rate(self, name: str, answers: Sequence[UnratedAnswer], context: RaterContext) -> list[JudgeVerdict]:
        """The ratings of the answers, in their order. `name`: that of the rater in its recipe."""

    def questions(self, answers: Sequence[UnratedAnswer]) -> list[tuple[JudgeMessage, ...]]:
        """What it would ask a judge, none for most raters: what they cost is told before."""
        return []
