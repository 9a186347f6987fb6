"""Dr. DPO (Wu et al., 2024): a soft minimum over the easy pairs of a whole step instead of their mean."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DrDPO(LogRatioObjective, StepObjective):
    """DPO that trusts those pairs of a step more whose loss is small: others may be flipped"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "temperature": {"loguniform": (0.3, 10.0)}}

    temperature: float = Field(
        1.0, gt=0, description="How far pairs of larger loss still count; large ones make it DPO"
    )

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        losses = -logsigmoid(self.logit(step.pairs))
        return {"weight": len(losses) * (-losses / self.temperature).softmax(0)}, {}

    def losses(self, pairs: PairLogps) -> Tensor:
        return pairs.step["weight"] * -logsigmoid(self.logit(pairs))
