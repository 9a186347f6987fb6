"""DPO-Shift (Yang et al., 2025), with a fixed weight: theirs may also grow over the training."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPOShift(LogRatioObjective):
    """DPO in which the rejected answer counts for less, so that the chosen one falls less"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "rejected_weight": {"uniform": (0.75, 1.0)}}

    rejected_weight: float = Field(0.95, gt=0, le=1, description="Weight of the rejected answer's log-ratio; 1 is DPO")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.chosen_ratio - self.rejected_weight * pairs.rejected_ratio))
