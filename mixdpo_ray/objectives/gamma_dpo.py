"""gamma-DPO (Sun et al., 2025): only the margins' deviations from their mean move the logit."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.gamma_margins import shared_margins, with_earlier
from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class GammaDPO(LogRatioObjective, StepObjective):
    """DPO with target margins around 0, shared out so that confident pairs get more"""

    search: ClassVar[Ranges] = {
        **LogRatioObjective.search,
        "gamma": {"uniform": (0.0, 2.0)},
        "tau": {"loguniform": (0.5, 20.0)},
        "queue": {"integer": (0, 2048)},
    }

    gamma: float = Field(0.5, ge=0, description="Mean of the margins that are shared out")
    tau: float = Field(1.0, gt=0, description="Pull towards equal margins")
    queue: int = Field(0, ge=0, le=2048, description="Earlier gaps that are kept, to stand beside those of small steps")

    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        gaps, state = with_earlier(self.logit(step.pairs), step, self.queue)
        margins = shared_margins(gaps, self.gamma, self.tau)
        return {"target": margins[: len(step.pairs.margin)] - self.gamma}, state

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) - pairs.step["target"])
