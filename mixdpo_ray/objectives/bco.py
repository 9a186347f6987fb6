"""BCO (Jung et al., 2024), for pairs; without the running mean of rewards, as in TRL 1.x."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps


class BCO(LogRatioObjective):
    """A binary classifier: chosen answers above 0, rejected ones below"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen) - logsigmoid(-rejected)
