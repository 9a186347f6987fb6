"""Conservative DPO (Mitchell, 2023). TRL 1.x ignores label_smoothing in its plain DPO loss."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class CDPO(LogRatioObjective):
    """DPO with smoothed labels: a share of them counts as flipped"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "label_smoothing": {"uniform": (0.0, 0.3)}}

    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="Share of labels that are taken to be flipped")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, flipped = self.logit(pairs), self.label_smoothing
        return -(1 - flipped) * logsigmoid(logit) - flipped * logsigmoid(-logit)
