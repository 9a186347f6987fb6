"""IPO (Azar et al., 2023). The authors compare means over tokens; their first public readers compared sums."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor


class IPO(Objective):
    """Squared regression of the log-ratio gap to 1 / (2 tau)

    `length_norm` compares means over tokens and not sums; the two need values of tau about a mean length apart.
    """

    search: ClassVar[Ranges] = {"tau": {"loguniform": (0.01, 1.0)}}

    tau: float = Field(0.1, gt=0, description="The gap is pulled to 1 / (2 tau); TRL calls it beta")
    length_norm: bool = Field(True, description="Compare per-token means of the log-ratios, not their sums")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self._ratios(pairs)
        return (chosen - rejected - 1 / (2 * self.tau)) ** 2

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        chosen, rejected = self._ratios(pairs)
        return self.tau * chosen, self.tau * rejected

    def _ratios(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        if not self.length_norm:
            return pairs.chosen_ratio, pairs.rejected_ratio
        return pairs.chosen_ratio / pairs.chosen_length, pairs.rejected_ratio / pairs.rejected_length
