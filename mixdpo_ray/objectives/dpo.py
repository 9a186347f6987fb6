"""DPO (Rafailov et al., 2023), equation 7."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class DPO(LogRatioObjective):
    """Logistic loss on the gap of policy-to-reference log-ratios"""

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs))
