"""SPA (Kim et al., 2025), its noise-aware loss. Its rounds of self-annotation are not here, nor its mixed logits.

A pair below a percentile of the mean margins of the last 50 steps counts as perhaps flipped. Those means are taken over
the easy pairs of a whole step; the smoothing begins after a part of the stage.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid

STEPS = 50


class SPA(LogRatioObjective, StepObjective):
    """DPO with smoothed labels where the policy is unsure, judged by its last 50 steps"""

    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "label_smoothing": {"uniform": (0.0, 0.3)},
        "percentile": {"uniform": (5.0, 20.0)},
        "warmup_fraction": {"uniform": (0.0, 0.5)},
    }

    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="Share of unsure labels that counts as flipped")
    percentile: float = Field(10.0, ge=0, le=100, description="Of the last steps' mean margins: below it is unsure")
    warmup_fraction: float = Field(0.2, ge=0, le=1, description="Share of the stage without smoothing")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        import torch

        logit = self.logit(step.pairs)
        before = step.state.get("margins", logit.new_zeros(0))
        flipped = torch.zeros_like(logit)
        if len(before) and step.progress >= self.warmup_fraction:
            flipped[logit <= before.quantile(self.percentile / 100)] = self.label_smoothing
        return {"flipped": flipped}, {"margins": torch.cat([before, logit.mean()[None]])[-STEPS:]}

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, flipped = self.logit(pairs), pairs.step["flipped"]
        return -(1 - flipped) * logsigmoid(logit) - flipped * logsigmoid(-logit)
