"""CPO (Xu et al., 2024): DPO against a uniform reference."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class CPO(Objective):
    """DPO without a reference, and likelihood of the chosen answer"""

    needs_reference: ClassVar[bool] = False
    search: ClassVar[Ranges] = {"beta": {"loguniform": (0.01, 0.5)}, "cpo_alpha": {"loguniform": (0.05, 2.0)}}

    beta: float = Field(0.1, gt=0, description="Scale of the summed log-probs")
    cpo_alpha: float = Field(1.0, ge=0, description="Weight of the likelihood")
    length_norm: bool = Field(True, description="Likelihood per token, not of the whole answer")

    def losses(self, pairs: PairLogps) -> Tensor:
        likelihood = pairs.chosen_mean if self.length_norm else pairs.chosen
        return -logsigmoid(self.beta * (pairs.chosen - pairs.rejected)) - self.cpo_alpha * likelihood

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * pairs.chosen, self.beta * pairs.rejected
