"""APO-zero (D'Oosterlinck et al., 2024): for answers that are better than the policy's own."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, sigmoid


class APOZero(LogRatioObjective):
    """Raises chosen answers and lowers rejected ones, each by itself"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return sigmoid(-chosen) + sigmoid(rejected)
