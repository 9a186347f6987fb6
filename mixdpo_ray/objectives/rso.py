"""The hinge of RSO (Liu et al., 2023), which SLiC inspired; TRL calls it hinge."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor


class RSO(LogRatioObjective):
    """Hinge on the log-ratio gap"""

    def losses(self, pairs: PairLogps) -> Tensor:
        return (1 - self.logit(pairs)).relu()
