"""KTO (Ethayarajh et al., 2024) on pairs: each gives one desirable and one undesirable example, whose losses are added.

z, the value that both are measured against, is the mean log-ratio of foreign answers, never below 0. A prompt's foreign
answers are those of the pair that follows it in the table: so their reference sums are computed once, like all others,
and hold for every threshold and batch size. It costs a forward pass without gradient over both. Evaluation takes the z
of the last step.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, sigmoid


class KTO(LogRatioObjective, StepObjective):
    """Prospect theory: gains and losses against a reference point, each saturating"""

    reads_mismatched: ClassVar[bool] = True
    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "desirable_weight": {"uniform": (1.0, 1.5)},
        "undesirable_weight": {"uniform": (1.0, 1.5)},
    }

    desirable_weight: float = Field(1.0, gt=0, description="Weight of chosen answers")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of rejected answers")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        z = step.state.get("z", step.pairs.margin.new_zeros(()))
        if step.mismatched_ratio is not None:
            z = step.mismatched_ratio.mean().clamp_min(0)
        return {"z": z.expand(len(step.pairs.margin))}, {"z": z}

    def losses(self, pairs: PairLogps) -> Tensor:
        chosen, rejected = self.rewards(pairs)
        z = self.beta * pairs.step["z"]
        desirable = self.desirable_weight * sigmoid(z - chosen)  # 1 - sigmoid(x) = sigmoid(-x)
        return desirable + self.undesirable_weight * sigmoid(rejected - z)
