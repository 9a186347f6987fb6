"""gamma-SimPO (Sun et al., 2025)."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.gamma_margins import shared_margins, with_earlier
from mixdpo_ray.objectives.length_mean import LengthMeanObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class GammaSimPO(LengthMeanObjective, StepObjective):
    """SimPO whose target margins are shared out so that confident pairs get more"""

    search: ClassVar[Ranges] = {
        "beta": {"loguniform": (2.0, 10.0)},
        "gamma_beta_ratio": {"uniform": (0.0, 1.0)},
        "tau": {"loguniform": (1.0, 50.0)},
        "queue": {"integer": (0, 2048)},
    }

    beta: float = Field(10.0, gt=0, description="Scale of the length-mean rewards")
    gamma_beta_ratio: float = Field(0.4, ge=0, description="Mean target margin divided by beta")
    tau: float = Field(10.0, gt=0, description="Pull towards equal margins")
    queue: int = Field(0, ge=0, le=2048, description="Earlier gaps that are kept, to stand beside those of small steps")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        gaps, state = with_earlier(self.beta * step.pairs.mean_gap, step, self.queue)
        margins = shared_margins(gaps, self.beta * self.gamma_beta_ratio, self.tau)
        return {"target": margins[: len(step.pairs.margin)]}, state

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.beta * pairs.mean_gap - pairs.step["target"])
