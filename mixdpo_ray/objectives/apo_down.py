"""APO-down (D'Oosterlinck et al., 2024): for answers that are worse than the policy's own. The chosen one may fall."""

import torch
from torch import Tensor

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class APODown(LogRatioObjective):
    """Lowers chosen answers, and rejected ones more"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)
