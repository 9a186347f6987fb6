"""MADPO: the weight of a pair follows from its margin, and has no gradient. Margins should be on a Bradley-Terry scale:
map ratings with `scale`.
"""

import math
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class MADPO(LogRatioObjective):
    """DPO that weighs ambiguous pairs up and clear ones down"""

    uses_margin: ClassVar[bool] = True
    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "c_max": {"uniform": (1.5, 4.0)},
        "steepness": {"loguniform": (0.5, 2.0)},
        "tau": {"loguniform": (1.0, 7.0)},
        "scale": {"loguniform": (0.2, 5.0)},
    }

    c_max: float = Field(2.0, gt=1, description="Largest amplification; the smallest is its inverse")
    steepness: float = Field(1.0, gt=0, description="How sharply the weight turns at tau; the paper's lambda")
    tau: float = Field(math.log(999), gt=0, description="Margin whose weight is 1")
    scale: float = Field(1.0, gt=0, description="Reward per unit of rating margin")

    def losses(self, pairs: PairLogps) -> Tensor:
        return self._weights(self.scale * pairs.margin) * -logsigmoid(self.logit(pairs))

    def _weights(self, margin: Tensor) -> Tensor:
        low, high = 1 / self.c_max, self.c_max
        turn = (high - 1) / (1 - low) * (self.steepness * (margin.abs() - self.tau)).exp()
        coefficient = low + (high - low) / (1 + turn)
        weights = sigmoid(coefficient * margin) / sigmoid(margin)
        return weights.where(margin > -self.tau, 1.0)
