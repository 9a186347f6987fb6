"""Budget-controlled regularisation, reconstructed from its abstract alone."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class BCR(LogRatioObjective):
    """DPO that lets chosen answers fall by a budget and charges for more"""

    experimental: ClassVar[bool] = True
    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "penalty": {"loguniform": (0.01, 1.0)},
        "budget": {"uniform": (0.0, 20.0)},
    }

    penalty: float = Field(1.0, ge=0, description="Price of each nat beyond the budget")
    budget: float = Field(0.0, ge=0, description="Nats that a chosen answer may fall below the reference")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs)) + self.penalty * (-pairs.chosen_ratio - self.budget).relu()
