"""The inner problem of gamma-PO (Sun et al., 2025): one total of target margins, shared out to the pairs of a step.

Shares p on the simplex minimise tau * KL(p, uniform) + the mean loss, by 20 steps of mirror descent; the margins that
are returned belong to the last but one. Earlier gaps may stand beside those of the step. The authors draw them on every
rank by itself; here all ranks draw the same ones.
"""

from __future__ import annotations

from mixdpo_ray.objectives.step_objective import ObjectiveState, StepView
from mixdpo_ray.objectives.tensors import Tensor, sigmoid

BISECTIONS = 20
TOGETHER = 256  # gaps of the step and earlier ones


def shared_margins(gaps: Tensor, mean_margin: float, tau: float) -> Tensor:
    """[pairs] gaps of rewards -> [pairs] target margins with this mean."""
    import torch

    count = len(gaps)
    shares, margins = torch.full_like(gaps, 1 / count), torch.full_like(gaps, mean_margin)
    rate = min(0.5 / tau, 1.0)
    for _ in range(BISECTIONS):
        margins = mean_margin * count * shares
        slope = tau * (1 + torch.log(count * shares)) + mean_margin * sigmoid(margins - gaps)
        shares = torch.softmax(torch.log(shares) - rate * slope, 0).clamp_min(1e-30)
    return margins


def with_earlier(gaps: Tensor, step: StepView, queue: int) -> tuple[Tensor, ObjectiveState]:
    """The gaps with earlier ones behind them, and the queue with these gaps in it."""
    import torch

    if not queue:
        return gaps, {}
    before = step.state.get("gaps", gaps.new_zeros(0))
    drawn = torch.randperm(len(before), generator=step.generator)[: max(0, TOGETHER - len(gaps))]
    return torch.cat([gaps, before[drawn]]), {"gaps": torch.cat([before, gaps])[-queue:]}
