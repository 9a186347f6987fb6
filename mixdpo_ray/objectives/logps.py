"""The seam between a forward pass and a loss: what an objective gets to see of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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

    @property
    def chosen_ratio(self) -> Tensor:
        """Policy minus reference on the chosen answer."""
        assert self.ref_chosen is not None, "the objective did not declare needs_reference"
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        assert self.ref_rejected is not None, "the objective did not declare needs_reference"
        return self.rejected - self.ref_rejected
