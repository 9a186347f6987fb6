"""Length-normalised DPO, as Tulu 3 trained with it."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPONorm(LogRatioObjective):
    """DPO on per-token means of the log-ratios"""

    search: ClassVar[Ranges] = {"beta": {"loguniform": (2.0, 20.0)}}

    beta: float = Field(5.0, gt=0, description="Scale of the per-token log-ratios")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen - rejected)

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        chosen, rejected = super().rewards(pairs)
        return chosen / pairs.chosen_length, rejected / pairs.rejected_length
