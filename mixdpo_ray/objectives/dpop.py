"""DPOP (Pal et al., 2024, "Smaug"): the penalty lies inside the sigmoid."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPOP(LogRatioObjective):
    """DPO that pays for chosen answers falling below the reference"""

    search: ClassVar[Ranges] = {"beta": {"loguniform": (0.05, 0.5)}, "penalty": {"loguniform": (1.0, 500.0)}}

    beta: float = Field(0.3, gt=0, description="Strength of the pull towards the reference")
    penalty: float = Field(50.0, ge=0, description="Weight of each nat that the chosen answer loses")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.gap - self.penalty * (-pairs.chosen_ratio).relu()))
