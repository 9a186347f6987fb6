"""BCO (Jung et al., 2024), for pairs; without the running mean of rewards, as in TRL 1.x."""

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class BCO(LogRatioObjective):
    """A binary classifier: chosen answers above 0, rejected ones below"""

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen) - logsigmoid(-rejected)
