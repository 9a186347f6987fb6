"""DPO (Rafailov et al., 2023), equation 7."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPO(LogRatioObjective):
    """Logistic loss on the gap of policy-to-reference log-ratios"""

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs))
