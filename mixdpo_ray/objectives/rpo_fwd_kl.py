"""RPO's forward KL (Nemotron-4, 2024): from the policy's preference to that of the ratings, sigmoid(eta * margin).

Its backward KL is not here: it differs from mmpo's loss by the label's entropy, and its gradient is the same.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class RPOForwardKL(LogRatioObjective):
    """Forward KL from the policy's preference to that of the ratings (RPO; its backward KL is `mmpo`)"""

    uses_margin: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "eta": {"loguniform": (0.1, 5.0)}}

    eta: float = Field(1.0, gt=0, description="Reward of one unit of rating")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, target = self.logit(pairs), self.eta * pairs.margin
        won = sigmoid(logit) * (logsigmoid(logit) - logsigmoid(target))
        return won + sigmoid(-logit) * (logsigmoid(-logit) - logsigmoid(-target))
