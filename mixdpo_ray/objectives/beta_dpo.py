"""beta-DPO (Wu et al., 2024). Statistics are those of the easy pairs of a whole step, and moving averages of them,
which begin at 0 as in the authors' code; every rank draws the same pairs to keep, where theirs each draw their own.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView, moving, spread
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid

SMALLEST_BETA = 1e-3


class BetaDPO(LogRatioObjective, StepObjective):
    """DPO with a beta for each step, larger for wide gaps, and without the pairs that lie far out"""

    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "a": {"uniform": (0.2, 1.0)},
        "keep": {"uniform": (0.6, 1.0)},
        "momentum": {"uniform": (0.8, 0.99)},
    }

    a: float = Field(0.6, ge=0, description="How strongly beta follows the gap")
    keep: float = Field(0.8, gt=0, le=1, description="Share of the step's pairs that is trained")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of the moving mean and spread of the gap")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        gap = step.pairs.gap
        mean = moving(step.state, "mean", gap.mean(), self.momentum)
        deviation = moving(step.state, "deviation", spread(gap), self.momentum)
        kept = self._kept(gap, mean, deviation, step)
        beta = (self.beta * (1 + self.a * (gap[kept].mean() - mean))).clamp_min(SMALLEST_BETA)
        weight = gap.new_zeros(len(gap))
        weight[kept] = len(gap) / len(kept)  # the step's loss is a mean over the kept pairs
        return {"beta": beta.expand(len(gap)), "weight": weight}, {"mean": mean, "deviation": deviation}

    def losses(self, pairs: PairLogps) -> Tensor:
        return pairs.step["weight"] * -logsigmoid(pairs.step["beta"] * pairs.gap)

    def _kept(self, gap: Tensor, mean: Tensor, deviation: Tensor, step: StepView) -> Tensor:
        """Drawn without replacement by normal weights; as logs with Gumbel noise, for weights may all underflow."""
        import torch

        count = max(1, round(self.keep * len(gap)))
        logs = -0.5 * ((gap - mean) / deviation.clamp_min(1e-6)) ** 2
        noise = torch.rand(len(gap), generator=step.generator, dtype=torch.float64).clamp_min(1e-300)
        return torch.topk(logs - torch.log(-torch.log(noise)).to(logs), count).indices
