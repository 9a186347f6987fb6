"""Adaptive preference scaling (Hong et al., 2024), also called Ada-DPO: the temperature solves a small problem of its
own by five projected Newton steps from 1. Its regulariser is constant for the policy and left out.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid, sigmoid


class APS(LogRatioObjective):
    """DPO with a temperature for each pair, solved for"""

    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "rho0": {"loguniform": (0.05, 0.5)},
        "tau_min": {"loguniform": (0.05, 0.5)},
        "tau_max": {"loguniform": (1.0, 10.0)},
    }

    rho0: float = Field(0.1, gt=0, description="Radius of the inner problem: larger values lower the temperature")
    tau_min: float = Field(0.1, gt=0, le=1, description="Lowest temperature")
    tau_max: float = Field(5.0, ge=1, description="Highest temperature")

    def losses(self, pairs: PairLogps) -> Tensor:
        logit = self.logit(pairs)
        tau = self._temperature(logit.detach())
        return -tau * logsigmoid(logit / tau)

    def _temperature(self, logit: Tensor) -> Tensor:
        tau = logit.new_ones(logit.shape)
        for _ in range(5):
            scaled = logit / tau
            right = sigmoid(scaled)
            slope = -(2 * right + 1e-6).log() + (1 - right) * scaled + self.rho0
            curvature = (scaled**2 / tau * right * (1 - right)).clamp_min(1e-6)
            tau = (tau - slope / curvature).clamp(self.tau_min, self.tau_max)
        return tau
