"""TODO (Guo et al., 2024): Rao and Kupper's model, in which two answers are a tie unless one leads by alpha.

As the objective it trains clear pairs; as `curriculum.hard_objective` it trains the ambiguous ones as ties.
"""

import math
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class TODO(LogRatioObjective):
    """DPO whose logit must pass alpha to be a win; a hard pair's loss is that of a tie"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"uniform": (0.1, 0.8)}}

    alpha: float = Field(0.5, gt=0, lt=40, description="Half the width of the band of logits that counts as a tie")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) - self.alpha)

    def hard_losses(self, pairs: PairLogps) -> Tensor:
        logit = self.logit(pairs)
        return -math.log(math.expm1(2 * self.alpha)) - logsigmoid(logit - self.alpha) - logsigmoid(-logit - self.alpha)
