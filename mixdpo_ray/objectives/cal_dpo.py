"""Cal-DPO (Xiao et al., 2024), with the weight of the code of its NeurIPS paper; there is no beta in the logistic part.

Targets of 250 nats make losses of 10^4: gradients are clipped, and beside SFT in one batch nothing else would be heard.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class CalDPO(LogRatioObjective):
    """DPO with rewards calibrated to plus and minus 1 / (2 beta)"""

    search: ClassVar[Ranges] = {"beta": {"loguniform": (0.001, 0.1)}, "calib_weight": {"loguniform": (0.05, 2.0)}}

    beta: float = Field(0.002, gt=0, description="Log-ratios are pulled to 1 / (2 beta) and - 1 / (2 beta)")
    calib_weight: float = Field(0.5, ge=0, description="Weight of the calibration")

    def losses(self, pairs: PairLogps) -> Tensor:
        target = 1 / (2 * self.beta)
        missed = (pairs.chosen_ratio - target) ** 2 + (pairs.rejected_ratio + target) ** 2
        return -logsigmoid(pairs.gap) + self.calib_weight * missed
