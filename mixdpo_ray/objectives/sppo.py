"""SPPO (Wu et al., 2024) with hard labels."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor


class SPPO(LogRatioObjective):
    """Squared regression of both log-ratios to plus and minus 1 / (2 beta)"""

    def losses(self, pairs: PairLogps) -> Tensor:
        target = 1 / (2 * self.beta)
        return (pairs.chosen_ratio - target) ** 2 + (pairs.rejected_ratio + target) ** 2
