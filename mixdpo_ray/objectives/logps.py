"""The seam between a forward pass and a loss: what an objective gets to see of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixdpo_ray.objectives.tensors import Tensor


@dataclass(frozen=True)
class TokenLogps:
    """Log-probs of single completion tokens [pairs, longest]; zero behind the end of an answer."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor


@dataclass(frozen=True)
class PairLogps:
    """Easy pairs of one micro-batch. Every tensor has shape [pairs]; sums and lengths cover completion tokens only."""

    chosen: Tensor  # sum of log-probs of the chosen answer under the policy
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    margin: Tensor  # rating of chosen minus rating of rejected
    ref_chosen: Tensor | None = None  # the same sums under the frozen reference
    ref_rejected: Tensor | None = None
    tokens: TokenLogps | None = None  # where the objective declares needs_tokens
    step: Mapping[str, Tensor] = field(default_factory=dict)  # what a StepObjective found in the whole step, [pairs]

    @property
    def chosen_ratio(self) -> Tensor:
        """Policy minus reference on the chosen answer."""
        assert self.ref_chosen is not None, "the objective did not declare needs_reference"
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        assert self.ref_rejected is not None, "the objective did not declare needs_reference"
        return self.rejected - self.ref_rejected

    @property
    def gap(self) -> Tensor:
        """DPO's logit without beta: how much further apart the policy holds the answers than the reference does."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def chosen_mean(self) -> Tensor:
        """Per token, without a reference."""
        return self.chosen / self.chosen_length

    @property
    def rejected_mean(self) -> Tensor:
        return self.rejected / self.rejected_length

    @property
    def mean_gap(self) -> Tensor:
        return self.chosen_mean - self.rejected_mean
