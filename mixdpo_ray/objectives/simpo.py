"""SimPO (Meng et al., 2024); the target margin is gamma = beta * gamma_beta_ratio."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.length_mean import LengthMeanObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class SimPO(LengthMeanObjective):
    """Logistic loss on length-mean log-probs with a target margin"""

    search: ClassVar[Ranges] = {**LengthMeanObjective.search, "gamma_beta_ratio": {"uniform": (0.0, 1.0)}}

    gamma_beta_ratio: float = Field(0.5, ge=0, description="Target margin divided by beta")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.mean_gap - self.gamma_beta_ratio))
