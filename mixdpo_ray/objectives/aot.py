"""AOT (Melnyk et al., 2024): the whole distribution of log-ratios is compared, sorted, not one pair with itself.

Sorting is over the easy pairs of a whole step; TRL sorts micro-batches. Each value is matched with the value of equal
rank on the other side. Ranks do not change under small moves, so the other side can be held fixed.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class AOT(LogRatioObjective, StepObjective):
    """DPO on sorted gaps: the policy's distribution should lie above the reference's"""

    search: ClassVar[Ranges] = {**LogRatioObjective.search, "label_smoothing": {"uniform": (0.0, 0.3)}}

    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of labels that are taken to be flipped")
    unpaired: bool = Field(False, description="Compare chosen with rejected log-ratios, not policy with reference")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        pairs = step.pairs
        if self.unpaired:
            chosen, rejected = pairs.chosen_ratio, pairs.rejected_ratio
            return {"rejected": _matched(chosen, rejected), "chosen": _matched(rejected, chosen)}, {}
        gap = pairs.chosen - pairs.rejected
        return {"reference": _matched(gap, gap - pairs.gap)}, {}

    def losses(self, pairs: PairLogps) -> Tensor:
        if not self.unpaired:
            return self._loss(pairs.chosen - pairs.rejected - pairs.step["reference"])
        own = self._loss(pairs.chosen_ratio - pairs.step["rejected"])
        both = own + self._loss(pairs.step["chosen"] - pairs.rejected_ratio)
        return both - both.detach() / 2  # every match is counted from both its sides; the gradient of each is whole

    def _loss(self, gap: Tensor) -> Tensor:
        logit, flipped = self.beta * gap, self.label_smoothing
        return -(1 - flipped) * logsigmoid(logit) - flipped * logsigmoid(-logit)


def _matched(values: Tensor, others: Tensor) -> Tensor:
    """The one of `others` that has equal rank, for each value."""
    matched = others.new_empty(len(others))
    matched[values.argsort(stable=True)] = others.sort().values
    return matched
