"""f-DPO (Wang et al., 2023) and chi-PO (Huang et al., 2024): other divergences from the reference than reverse KL.

Each gives a link, through which both log-ratios go before they are compared. Exponents are bounded: beyond, an answer
has no gradient.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import EXPONENT_BOUND, Tensor, logsigmoid


class FDPO(LogRatioObjective):
    """DPO held near the reference by another divergence than reverse KL; link chi is chi-PO"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"uniform": (0.1, 0.9)}}

    link: Literal["forward_kl", "js", "alpha", "chi"] = Field("js", description="The divergence")
    alpha: float = Field(0.5, ge=0, lt=1, description="Of the alpha divergence: 0 is forward KL, towards 1 it is DPO")
    clip: float | None = Field(None, gt=0, description="Largest size of the logit; chi-PO takes 2 R_max of its rewards")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        logit = chosen - rejected
        return -logsigmoid(logit if self.clip is None else logit.clamp(-self.clip, self.clip))

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * self._linked(pairs.chosen_ratio), self.beta * self._linked(pairs.rejected_ratio)

    def _linked(self, ratio: Tensor) -> Tensor:
        if self.link == "js":
            return math.log(2) + logsigmoid(ratio)
        if self.link == "chi":
            return ratio + ratio.clamp_max(EXPONENT_BOUND).exp()
        power = -1.0 if self.link == "forward_kl" else self.alpha - 1
        return (power * ratio).clamp_max(EXPONENT_BOUND).expm1() / power
