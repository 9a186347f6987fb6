"""DPO-D (Chen et al., 2024): Davidson's model of ties. Of two equal answers nu / (1 + nu) are ties, which sets nu.

As the objective it trains clear pairs; as `curriculum.hard_objective` it trains the ambiguous ones as ties.
"""

import math
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor


class DPOD(LogRatioObjective):
    """DPO beside a third outcome, a tie, of weight nu; a hard pair's loss is that of a tie"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "nu": {"loguniform": (0.05, 2.0)}}

    nu: float = Field(1.0, gt=0, description="Weight of a tie: at equal answers the share of ties over that of wins")

    def losses(self, pairs: PairLogps) -> Tensor:
        half = self.logit(pairs) / 2
        return self._all_outcomes(half) - half

    def hard_losses(self, pairs: PairLogps) -> Tensor:
        return self._all_outcomes(self.logit(pairs) / 2) - math.log(2 * self.nu)

    def _all_outcomes(self, half: Tensor) -> Tensor:
        """The log of the weights of a win, a loss and a tie together."""
        import torch

        return torch.stack([half, -half, torch.full_like(half, math.log(2 * self.nu))]).logsumexp(0)
