"""What every judge promises: to answer questions in their order, failures among them, and to say who it is.

A judge sees a question's messages and nothing else, whichever it is: protocols are written once, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.judges.http import asked_over_http
from mixdpo_ray.judges.local import LocalJudge
from mixdpo_ray.judges.truth import TruthJudge
from mixdpo_ray.judging.asking import AskingProgress
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.recipe.recipe import Recipe


class ChatJudge(Protocol):
    @property
    def name(self) -> str:
        """Whose verdicts they are, for people and in files."""

    @property
    def progress(self) -> AskingProgress:
        """What this job has asked and spent so far, and what it found answered."""

    def ask(self, questions: Sequence[ChatQuestion], *, title: str = "judge", unit: str = "verdict") -> list[ChatReply]:
        """Their answers or failures, in their order; what was answered before costs nothing."""


JUDGES: Mapping[str, Callable[[Recipe], AbstractContextManager[ChatJudge]]] = {
    "http": asked_over_http,
    "hf": LocalJudge.of_recipe,
    "playground": TruthJudge.of_recipe,
}


@contextmanager
def open_judge(recipe: Recipe) -> Iterator[ChatJudge]:
    """The recipe's judge, as long as the body runs. Ray is connected."""
    if recipe.answers.judge is None:
        raise RecipeError("answers.judge: the recipe names none; give {engine: http, http: {url: ..., model: ...}}")
    with JUDGES[recipe.answers.judge.engine](recipe) as judge:
        yield judge
