"""Selective alignment: DPO over the tokens that matter most. Not SelectiveDPO, which selects pairs.

A chosen token matters where the reference holds it likelier than the policy does, a rejected one where the policy does.
The mask follows the policy and has no gradient. It wants a reference that is stronger than the policy: model.reference.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class SelectiveTokens(LogRatioObjective):
    """DPO on the tokens of each answer where policy and reference differ most"""

    needs_tokens: ClassVar[bool] = True
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "quantile": {"uniform": (0.0, 0.8)}}

    quantile: float = Field(0.6, ge=0, lt=1, description="Share of each answer's tokens that is left out")

    def losses(self, pairs: PairLogps) -> Tensor:
        assert pairs.tokens is not None, "the objective did not declare needs_tokens"
        tokens = pairs.tokens
        chosen, rejected = tokens.chosen - tokens.ref_chosen, tokens.rejected - tokens.ref_rejected
        chosen_sum = self._selected(chosen, -chosen.detach(), pairs.chosen_length)
        return -logsigmoid(
            self.beta * (chosen_sum - self._selected(rejected, rejected.detach(), pairs.rejected_length))
        )

    def _selected(self, ratios: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
        """Sums over the tokens whose score is not below the answer's quantile: [pairs]."""
        import torch

        real = torch.arange(ratios.shape[1], device=ratios.device) < lengths[:, None]
        least = torch.where(real, scores, torch.nan).nanquantile(self.quantile, dim=1, keepdim=True)
        return torch.where(real & (scores >= least), ratios, 0.0).sum(1)
