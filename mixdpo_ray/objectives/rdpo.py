"""R-DPO (Park et al., 2024). A longer chosen answer explains part of its label by itself, so the policy is pushed less.

Some public ports subtract the term, or take the batch size for the length.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class RDPO(LogRatioObjective):
    """DPO that prices length apart from quality"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"loguniform": (0.005, 1.0)}}

    alpha: float = Field(0.05, ge=0, description="Logit of each token that the chosen answer is longer")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) + self.alpha * (pairs.chosen_length - pairs.rejected_length))
