"""Supervised fine-tuning as the loss of easy pairs: a baseline (appendix B.5).

On chosen answers alone `curriculum.threshold.hard_fraction: 1.0` does the same without running the rejected ones.
"""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.tensors import Tensor


class SFT(Objective):
    """Likelihood per token of the chosen answer, or of both answers"""

    needs_reference: ClassVar[bool] = False

    both: bool = Field(False, description="Train on rejected answers as well, each as an example of its own")

    def losses(self, pairs: PairLogps) -> Tensor:
        return -pairs.chosen_mean - pairs.rejected_mean if self.both else -pairs.chosen_mean

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return pairs.chosen_mean, pairs.rejected_mean
