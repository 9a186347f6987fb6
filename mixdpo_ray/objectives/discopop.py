"""DiscoPOP (Lu et al., 2024), a loss that was found by a language model.

Around a logit of 0, where training starts, its slope points the other way: it blends into a loss that is larger there.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class DiscoPOP(LogRatioObjective):
    """Blend of a logistic and an exponential loss, by the logit itself"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "tau": {"loguniform": (0.02, 1.0)}}

    tau: float = Field(0.05, gt=0, le=1, description="Temperature of the blend; above 1 the loss would not be bounded")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit = self.logit(pairs)
        exponential = (logsigmoid(logit / self.tau) - logit).exp()  # as one power: 0 times infinity is no number
        return -sigmoid(-logit / self.tau) * logsigmoid(logit) + exponential
