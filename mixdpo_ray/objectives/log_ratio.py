"""The family of DPO: rewards are beta times the log-ratio of policy and reference."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor


class LogRatioObjective(Objective):
    search: ClassVar[Ranges] = {"beta": {"loguniform": (0.005, 0.5)}}

    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference; the paper uses 0.01")

    def logit(self, pairs: PairLogps) -> Tensor:
        return self.beta * pairs.gap

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * pairs.chosen_ratio, self.beta * pairs.rejected_ratio
