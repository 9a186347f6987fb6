"""AlphaPO (Gupta et al., 2025): SimPO with a reward that bends, (1 - e^(-alpha m)) / alpha of the mean log-prob m."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.length_mean import LengthMeanObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import EXPONENT_BOUND, Tensor, logsigmoid


class AlphaPO(LengthMeanObjective):
    """SimPO whose reward falls the steeper the less likely an answer is"""

    search: ClassVar[Ranges] = {
        **LengthMeanObjective.search,
        "gamma_beta_ratio": {"uniform": (0.0, 1.0)},
        "alpha": {"uniform": (0.0, 1.0)},
    }

    gamma_beta_ratio: float = Field(0.5, ge=0, description="Target margin divided by beta")
    alpha: float = Field(0.25, ge=0, description="How much the reward bends; 0 is SimPO")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen - rejected - self.beta * self.gamma_beta_ratio)

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * self._bent(pairs.chosen_mean), self.beta * self._bent(pairs.rejected_mean)

    def _bent(self, mean: Tensor) -> Tensor:
        if self.alpha == 0:
            return mean
        return -(-self.alpha * mean).clamp_max(EXPONENT_BOUND).expm1() / self.alpha
