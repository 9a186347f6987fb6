"""APO-zero (D'Oosterlinck et al., 2024): for answers that are better than the policy's own."""

import torch
from torch import Tensor

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class APOZero(LogRatioObjective):
    """Raises chosen answers and lowers rejected ones, each by itself"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.sigmoid(-chosen) + torch.sigmoid(rejected)
