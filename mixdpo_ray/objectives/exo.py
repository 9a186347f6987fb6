"""EXO (Ji et al., 2024), for pairs: the reverse KL to a smoothed label."""

import math
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class EXO(LogRatioObjective):
    """Reverse KL between the policy's preference and a smoothed label"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "label_smoothing": {"loguniform": (1e-4, 0.1)}}

    label_smoothing: float = Field(1e-3, gt=0, lt=0.5, description="Share of labels that are taken to be flipped")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit = self.logit(pairs)
        right = sigmoid(logit) * (logsigmoid(logit) - math.log(1 - self.label_smoothing))
        return right + sigmoid(-logit) * (logsigmoid(-logit) - math.log(self.label_smoothing))
