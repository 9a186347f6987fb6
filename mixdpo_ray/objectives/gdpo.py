"""Geometric-averaged DPO (Furuta et al., 2024), reconstructed: a tie has no gradient."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class GDPO(LogRatioObjective):
    """DPO whose logit shrinks with the doubt in the label"""

    uses_margin: ClassVar[bool] = True
    experimental: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "temperature": {"loguniform": (0.5, 2.0)}}

    temperature: float = Field(1.0, gt=0, description="Ratings that make a label one e-fold surer")

    def losses(self, pairs: PairLogps) -> Tensor:
        sure = 2 * sigmoid(pairs.margin / self.temperature) - 1
        return -logsigmoid(sure * self.logit(pairs))
