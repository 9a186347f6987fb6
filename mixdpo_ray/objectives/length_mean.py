"""The family of SimPO: rewards are beta times the mean log-prob of a token, without a reference."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor


class LengthMeanObjective(Objective):
    needs_reference: ClassVar[bool] = False
    search: ClassVar[Ranges] = {"beta": {"loguniform": (1.0, 10.0)}}

    beta: float = Field(2.0, gt=0, description="Scale of the length-mean rewards")

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return self.beta * pairs.chosen_mean, self.beta * pairs.rejected_mean
