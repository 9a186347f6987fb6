"""The hinge of RSO (Liu et al., 2023), which SLiC inspired; TRL calls it hinge."""

from torch import Tensor

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class RSO(LogRatioObjective):
    """Hinge on the log-ratio gap"""

    def losses(self, pairs: PairLogps) -> Tensor:
        return (1 - self.logit(pairs)).relu()
