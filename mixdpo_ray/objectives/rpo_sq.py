"""RPO's squared distance (Nemotron-4, 2024), which is REBEL (Gao et al., 2024): regression of the rating margin."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor


class RPOSquared(LogRatioObjective):
    """Squared regression of the logit to eta times the rating margin (RPO; also known as REBEL)"""

    uses_margin: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "eta": {"loguniform": (0.1, 5.0)}}

    eta: float = Field(1.0, gt=0, description="Reward of one unit of rating")

    def losses(self, pairs: PairLogps) -> Tensor:
        return (self.logit(pairs) - self.eta * pairs.margin) ** 2
