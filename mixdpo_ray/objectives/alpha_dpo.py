"""alpha-DPO (Wu et al., 2024): SimPO whose target margin follows the reference. Moving averages are over the easy pairs
of whole steps. They begin at 0, as in the authors' code, which makes the first targets ten times as wide; `unbiased`
divides that out.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.length_mean import LengthMeanObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView, moving, spread
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class AlphaDPO(LengthMeanObjective, StepObjective):
    """SimPO with a target margin that grows where the policy already leads the reference"""

    needs_reference: ClassVar[bool] = True
    search: ClassVar[Ranges] = {
        "beta": {"loguniform": (1.0, 10.0)},
        "gamma_beta_ratio": {"uniform": (0.1, 0.8)},
        "alpha": {"loguniform": (0.01, 0.3)},
        "momentum": {"uniform": (0.8, 0.99)},
    }

    beta: float = Field(2.5, gt=0, description="Scale of the length-mean rewards")
    gamma_beta_ratio: float = Field(0.6, ge=0, description="Target margin of an average pair, divided by beta")
    alpha: float = Field(0.2, ge=0, description="How strongly the target follows the reference")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of the moving mean and spread")
    unbiased: bool = Field(False, description="Divide the averages by the weight that they have gathered")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        pairs = step.pairs
        gap = pairs.chosen_ratio / pairs.chosen_length - pairs.rejected_ratio / pairs.rejected_length
        now = {"mean": gap.mean(), "deviation": spread(gap), "weight": gap.new_ones(())}
        state = {name: moving(step.state, name, value, self.momentum) for name, value in now.items()}
        weight = state["weight"] if self.unbiased else gap.new_ones(())
        standing = (gap - state["mean"] / weight) / (state["deviation"] / weight).clamp_min(1e-5)
        return {"target": self.gamma_beta_ratio + self.alpha * standing}, state

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * (pairs.mean_gap - pairs.step["target"]))
