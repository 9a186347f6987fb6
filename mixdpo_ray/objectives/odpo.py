"""ODPO (Amini et al., 2024). The offset of a tie would be log 0: ties are routed to SFT, or refused."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class ODPO(LogRatioObjective):
    """DPO with an offset: alpha times the log of the rating margin"""

    uses_margin: ClassVar[bool] = True
    takes_ties: ClassVar[bool] = False
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"uniform": (0.0, 2.0)}}

    alpha: float = Field(1.0, ge=0, description="Weight of the offset")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) - self.alpha * pairs.margin.clamp_min(1e-6).log())
