"""RePO (Wu et al., 2025): the limit of SimPO for an infinite beta. A pair past its target has no gradient."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor


class RePO(Objective):
    """Hinge on the gap of length-mean log-probs"""

    needs_reference: ClassVar[bool] = False
    search: ClassVar[Ranges] = {"gamma": {"uniform": (0.0, 1.0)}}

    gamma: float = Field(0.5, ge=0, description="Gap per token that is asked for")

    def losses(self, pairs: PairLogps) -> Tensor:
        return (self.gamma - pairs.mean_gap).relu()

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return pairs.chosen_mean, pairs.rejected_mean
