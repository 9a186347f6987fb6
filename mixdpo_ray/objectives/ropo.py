"""ROPO (Liang et al., 2024), its loss; the rounds of filtering and regenerating are not here."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class ROPO(LogRatioObjective):
    """DPO and a bounded term that gives up on pairs that look flipped"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"loguniform": (2.0, 30.0)}}

    alpha: float = Field(14.0, gt=0, description="Weight of the bounded term")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, scale = self.logit(pairs), 4 * self.alpha / (1 + self.alpha) ** 2
        return scale * (-logsigmoid(logit) + self.alpha * sigmoid(-logit))
