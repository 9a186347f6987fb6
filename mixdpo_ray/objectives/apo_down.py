"""APO-down (D'Oosterlinck et al., 2024): for answers that are worse than the policy's own. The chosen one may fall."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, sigmoid


class APODown(LogRatioObjective):
    """Lowers chosen answers, and rejected ones more"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return sigmoid(chosen) + sigmoid(rejected - chosen)
