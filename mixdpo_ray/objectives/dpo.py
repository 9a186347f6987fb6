"""DPO: a logistic loss on the gap of policy-to-reference log-ratios."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective


class DPO(Objective):
    search: ClassVar = {"beta": {"loguniform": (0.005, 0.5)}}

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference; the paper uses 0.01")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.chosen_ratio - pairs.rejected_ratio))

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * pairs.chosen_ratio, self.beta * pairs.rejected_ratio
