"""Margin matching (Kim et al., 2024). The label of a tie is one half, which pulls its gap to 0."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class MMPO(LogRatioObjective):
    """Cross-entropy against a soft label: the sigmoid of gamma times the rating margin"""

    uses_margin: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "gamma": {"loguniform": (0.3, 5.0)}}

    gamma: float = Field(2.2, gt=0, description="Sharpness of the label, per unit of rating")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, label = self.logit(pairs), sigmoid(self.gamma * pairs.margin)
        return -label * logsigmoid(logit) - (1 - label) * logsigmoid(-logit)
