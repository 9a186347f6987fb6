"""DPO-PoP, preference over preference, reconstructed: a pair must lead by as much as a weaker pair does.

For each pair another one of the same step with a smaller rating margin is drawn; its logit, detached and not below 0,
is the margin. The weakest pairs of a step have nobody below them and are trained by plain DPO. In a sorted curriculum
the pairs of a step are nearly equal in margin, so mode router_shuffled gives the method more to say.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class DPOPoP(LogRatioObjective, StepObjective):
    """DPO whose margin is the logit of a weaker preference of the same step"""

    uses_margin: ClassVar[bool] = True
    experimental: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "min_gap": {"uniform": (0.0, 2.0)}}

    min_gap: float = Field(0.0, ge=0, description="How much smaller the weaker pair's rating margin must be")
    max_margin: float | None = Field(None, gt=0, description="Largest margin; none is no limit")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        import torch

        margin, logit = step.pairs.margin, self.logit(step.pairs)
        order = torch.argsort(margin, stable=True)
        ascending = margin[order].contiguous()
        below = torch.minimum(
            torch.searchsorted(ascending, margin.contiguous()),
            torch.searchsorted(ascending, (margin - self.min_gap).contiguous(), right=True),
        )  # how many pairs are weaker
        drawn = (torch.rand(len(margin), generator=step.generator, dtype=torch.float64) * below).long()
        weaker = logit[order[drawn.clamp_max(len(margin) - 1)]].clamp(0, self.max_margin)
        return {"target": torch.where(below > 0, weaker, 0.0)}, {}

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) - pairs.step["target"])
