"""SLiC-HF (Zhao et al., 2023), with the chosen answer as the regulariser's target. TRL's "hinge" is RSO."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor


class SLiC(Objective):
    """Hinge on the gap of log-probs, and likelihood of the chosen answer as regulariser"""

    needs_reference: ClassVar[bool] = False
    search: ClassVar[Ranges] = {"delta": {"loguniform": (0.1, 10.0)}, "sft_weight": {"loguniform": (0.01, 10.0)}}

    delta: float = Field(1.0, gt=0, description="Gap that is asked for; about 0.1 with length_norm")
    sft_weight: float = Field(0.1, ge=0, description="Weight of the regulariser; the paper's lambda")
    length_norm: bool = Field(False, description="Compare log-probs per token, not of whole answers")

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        return (self.delta - chosen + rejected).relu() - self.sft_weight * chosen

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        if self.length_norm:
            return pairs.chosen_mean, pairs.rejected_mean
        return pairs.chosen, pairs.rejected
