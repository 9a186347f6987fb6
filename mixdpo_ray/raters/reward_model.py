"""Rating by a reward model, on the cluster's CPUs or GPUs: cheap, and on a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.raters.rater import Rater, RaterContext, UnratedAnswer
from mixdpo_ray.training.settings import Dtype, ModelSettings


class RewardModelRater(Rater):
    """What a sequence-classification reward model gives the answer."""

    needs: ClassVar[str] = "a sequence-classification reward model"

    model: str = Field(description="Hugging Face name or folder of the model that rates")
    revision: str | None = Field(None, description="Commit or tag on the Hub")
    dtype: Dtype = Field("bfloat16", description="Number format of its weights")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings along")
    max_length: int = Field(4096, ge=2, description="Tokens; of longer texts the beginning is cut")
    batch_size: int = Field(16, ge=1, description="Answers rated at once by each copy; halved where memory runs out")

    @property
    def rating_model(self) -> ModelSettings:
        own = self.model_dump(include={"revision", "dtype", "trust_remote_code"})
        return ModelSettings.model_validate({"path": self.model, **own})

    def rate(self, name: str, answers: Sequence[UnratedAnswer], context: RaterContext) -> list[JudgeVerdict]:
        rewards = context.rewards(name, self.rating_model, self.max_length, self.batch_size, answers)
        return [JudgeVerdict(reward) for reward in rewards]
