"""Balanced preference optimization (Sun et al., 2025). The gradient reaches one side of each pair."""

from typing import ClassVar, Literal

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class BPO(LogRatioObjective):
    """Trains only the side of a pair that lags behind"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"uniform": (0.1, 1.0)}}

    alpha: float = Field(0.3, gt=0, description="What the rejected answer's fall counts beside the chosen one's rise")
    link: Literal["logistic", "hinge"] = Field("logistic", description="Loss of the lagging side")

    def losses(self, pairs: PairLogps) -> Tensor:
        lagging = self.beta * pairs.chosen_ratio.minimum(-self.alpha * pairs.rejected_ratio)
        return -logsigmoid(lagging) if self.link == "logistic" else (1 - lagging).relu()
