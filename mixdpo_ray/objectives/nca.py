"""NCA (Chen et al., 2024), for pairs."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class NCA(LogRatioObjective):
    """Noise contrast: raises the chosen answer and holds both rewards near 0"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
