"""SimPO: length-mean log-probs as rewards, no reference, and a target margin gamma = beta * gamma_beta_ratio."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective


class SimPO(Objective):
    needs_reference: ClassVar[bool] = False
    search: ClassVar = {"beta": {"loguniform": (1.0, 10.0)}, "gamma_beta_ratio": {"uniform": (0.0, 1.0)}}

    beta: float = Field(2.0, gt=0, description="Scale of the length-mean rewards")
    gamma_beta_ratio: float = Field(0.5, ge=0, description="Target margin divided by beta")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return -logsigmoid(chosen - rejected - self.beta * self.gamma_beta_ratio)

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * pairs.chosen / pairs.chosen_length, self.beta * pairs.rejected / pairs.rejected_length
