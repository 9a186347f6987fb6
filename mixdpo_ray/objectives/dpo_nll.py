"""DPO + NLL: iterative reasoning optimisation (Pang et al., 2024) with weight 1 and beta 0.1, regularised RPO (Liu et
al., 2024) with 0.005 and 0.01. The likelihood is a mean per answer; TRL's is one over the tokens of a micro-batch.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPONLL(LogRatioObjective):
    """DPO and likelihood of the chosen answer (RPO)"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "nll_weight": {"loguniform": (0.005, 1.0)}}

    nll_weight: float = Field(1.0, ge=0, description="Weight of the likelihood per token")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs)) - self.nll_weight * pairs.chosen_mean
