"""The seam between a forward pass and a loss: what an objective gets to see of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from mixdpo_ray.objectives.tensors import Tensor

# By how much two runs of the same weights may differ, of an answer's log-prob and one nat a token: 16 steps of a 32-bit
# number. In playgrounds of 8 tokens an answer it was up to 2.
ROUNDING = 2.0**-19


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
    # Mean over an answer's tokens of the log-prob minus the log of the sum of all squared probabilities, which is what
    # one of the policy's own draws has in the mean; detached; where the objective declares needs_typicality
    chosen_typicality: Tensor | None = None
    rejected_typicality: Tensor | None = None
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
    def unrounded(self) -> Self:
        """The same pairs, the policy's sums taken for the reference's where rounding alone parts them."""
        if self.ref_chosen is None or self.ref_rejected is None:
            return self
        chosen = _unless_rounding(self.chosen, self.ref_chosen, self.chosen_length)
        return replace(
            self, chosen=chosen, rejected=_unless_rounding(self.rejected, self.ref_rejected, self.rejected_length)
        )

    @property
    def mean_gap(self) -> Tensor:
        return self.chosen_mean - self.rejected_mean


def _unless_rounding(policy: Tensor, reference: Tensor, length: Tensor) -> Tensor:
    return policy.where((policy - reference).abs() > ROUNDING * (reference.abs() + length), reference)
