"""Robust DPO (Chowdhury et al., 2024): the expectation over flips is the loss of clean labels.

Unbounded below: a very confident policy has a loss far under 0.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class RobustDPO(LogRatioObjective):
    """DPO made unbiased against a known rate of flipped labels"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "label_smoothing": {"uniform": (0.0, 0.3)}}

    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="Rate at which labels are flipped")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, flipped = self.logit(pairs), self.label_smoothing
        return (-(1 - flipped) * logsigmoid(logit) + flipped * logsigmoid(-logit)) / (1 - 2 * flipped)
