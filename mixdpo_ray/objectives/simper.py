"""SimPER (Xiao et al., 2025): the inverse perplexities of the two answers, with nothing to choose."""

from typing import ClassVar

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.tensors import Tensor


class SimPER(Objective):
    """Inverse perplexity of the rejected answer minus that of the chosen one"""

    needs_reference: ClassVar[bool] = False

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return rejected - chosen

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return pairs.chosen_mean.exp(), pairs.rejected_mean.exp()
