"""Rating by the implicit reward of a model: how much likelier it makes the answer than the model it was trained from.

What SPA's rounds annotate with (self-annotation): no judge and no reward model is needed, but a model that was trained
on a few labels. Longer answers add up more of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.raters.rater import Rater, RaterContext, UnratedAnswer


class ImplicitRater(Rater):
    """beta log(pi / pi_ref) of the answer, summed over its tokens."""

    needs: ClassVar[str] = "a model that was trained by preferences, of the recipe's family"

    model: str = Field(description="outputs/runs/NAME, its checkpoints/step-K, a model's folder or Hub name")
    revision: str | None = Field(None, description="Commit or tag on the Hub")
    against: str | None = Field(None, description="The model that it was trained from; by default model.path")
    beta: float = Field(0.1, gt=0, description="What the log-ratio is multiplied by")
    batch_size: int = Field(16, ge=1, description="Answers read at once by each copy; halved where memory runs out")

    def rate(self, name: str, answers: Sequence[UnratedAnswer], context: RaterContext) -> list[JudgeVerdict]:
        setting = f"answers.rate.raters.{name}"
        own = context.logps(f"{setting}.model", self.model, self.revision, self.batch_size, answers)
        base = context.logps(f"{setting}.against", self.against, None, self.batch_size, answers)
        return [self._rating(*both) for both in zip(own, base, strict=True)]

    def _rating(self, own: float | str, base: float | str) -> JudgeVerdict:
        if isinstance(own, str) or isinstance(base, str):
            return JudgeVerdict.unreadable(own if isinstance(own, str) else str(base))
        return JudgeVerdict(self.beta * (own - base))
