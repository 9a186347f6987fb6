"""DPO with an offset that grows with the rating margin: the common form of many methods, and their baseline."""

from typing import ClassVar, Literal

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class MarginDPO(LogRatioObjective):
    """DPO with an offset of one's choice in the rating margin"""

    uses_margin: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"loguniform": (0.01, 1.0)}}

    alpha: float = Field(0.1, ge=0, description="Weight of the offset")
    offset: Literal["identity", "log1p", "tanh", "constant"] = Field("identity", description="A function of the margin")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -logsigmoid(self.logit(pairs) - self.alpha * self._offset(pairs.margin))

    def _offset(self, margin: Tensor) -> Tensor:
        if self.offset == "constant":
            return margin.new_ones(margin.shape)
        return margin if self.offset == "identity" else getattr(margin, self.offset)()
