"""LD-DPO (Liu et al., 2024): what makes an answer longer than the other counts for less, in policy and reference."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class LDDPO(LogRatioObjective):
    """DPO in which tokens beyond the shorter answer's length count for less"""

    needs_tokens: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "alpha": {"uniform": (0.0, 1.0)}}

    alpha: float = Field(0.5, ge=0, le=1, description="Weight of tokens beyond the shorter answer's length; 1 is DPO")

    def losses(self, pairs: PairLogps) -> Tensor:
        assert pairs.tokens is not None, "the objective did not declare needs_tokens"
        tokens, shared = pairs.tokens, pairs.chosen_length.minimum(pairs.rejected_length)
        chosen = self._weighed(tokens.chosen - tokens.ref_chosen, shared)
        return -logsigmoid(self.beta * (chosen - self._weighed(tokens.rejected - tokens.ref_rejected, shared)))

    def _weighed(self, ratios: Tensor, shared: Tensor) -> Tensor:
        """Sums over all tokens, of which those from `shared` on count for alpha: [pairs]."""
        import torch

        beyond = torch.arange(ratios.shape[1], device=ratios.device) >= shared[:, None]
        return torch.where(beyond, self.alpha * ratios, ratios).sum(1)
