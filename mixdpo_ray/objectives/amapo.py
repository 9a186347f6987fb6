"""AMaPO. Mean and spread are those of the easy pairs of a whole step; the authors' are those of one micro-batch.

An exponent above 10 is cut: it grows without bound where the mean gap is positive, and the loss would not be finite.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.length_mean import LengthMeanObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView, spread
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid

LARGEST_EXPONENT = 10.0


class AMaPO(LengthMeanObjective, StepObjective):
    """SimPO with a target margin for pairs below the step's mean, by how far they are below"""

    search: ClassVar[Ranges] = {"beta": {"uniform": (1.5, 3.5)}}

    beta: float = Field(2.0, gt=0, description="Scale of the length-mean rewards")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        gap = step.pairs.mean_gap
        mean, deviation = gap.mean(), spread(gap)
        exponent = (mean - gap) / deviation.clamp_min(1e-12) * mean
        target = exponent.clamp_max(LARGEST_EXPONENT).exp().where(gap < mean, 0.0)
        return {"target": target if deviation > 0 else gap.new_zeros(len(gap))}, {}

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.mean_gap - pairs.step["target"]))
