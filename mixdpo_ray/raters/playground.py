"""Rating by the rule behind a playground, which knows the true quality of every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.playground.prompts import BEST, WORST, quality
from mixdpo_ray.playground.truth import playground_prompt
from mixdpo_ray.raters.rater import Rater, RaterContext, UnratedAnswer


class PlaygroundRater(Rater):
    """The answer's true quality, from 1 to 10."""

    needs: ClassVar[str] = "prompts of a playground"
    needs_cluster: ClassVar[bool] = False
    lowest_and_highest: ClassVar[tuple[float, float] | None] = (WORST, BEST)

    def rate(self, name: str, answers: Sequence[UnratedAnswer], context: RaterContext) -> list[JudgeVerdict]:
        return [_truth(answer) for answer in answers]


def _truth(answer: UnratedAnswer) -> JudgeVerdict:
    prompt = playground_prompt(answer.messages[-1]["content"])
    if prompt is None:
        return JudgeVerdict.unreadable("no_playground_prompt")
    return JudgeVerdict(quality(prompt, answer.text))
