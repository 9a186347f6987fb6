"""Alignment potential M_AP: the margin that there should be, minus the margin that the model has already.

Both are z-scored over the data set, as in the authors' code; the external margin is signed, the model's is not.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mixdpo_ray.difficulty.implicit_margin import mean_margin
from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs, language_model, standardised
from mixdpo_ray.training.settings import ModelSettings


class AlignmentPotential(Formula):
    """M_AP: z-scored external margin minus the z-scored size of the model's own length-mean margin."""

    needs: ClassVar[str] = "another metric as the external margin; log-probs of one model"

    external: str = Field("reward_margin", description="The metric that says how large the margin should be")
    model: str | None = Field(None, description="Of the policy's tokenizer; by default the policy before training")
    weight: float = Field(1.0, ge=0, description="Of the model's own margin; 2.5 for data that a model made itself")
    standardise: bool = Field(True, description="Z-score both margins over the data set before one is subtracted")

    def others(self) -> tuple[str, ...]:
        return (self.external,)

    def logps_of(self, policy: ModelSettings) -> tuple[ModelSettings, ...]:
        return (language_model(policy, self.model),)

    def values(self, facts: MetricInputs) -> Column:
        own = mean_margin(facts.logps[0], facts.chosen_length, facts.rejected_length)
        return alignment_potential(
            facts.metrics[self.external], own, facts.train if self.standardise else None, self.weight
        )


def alignment_potential(external: Column, own: Column, train: NDArray[np.bool_] | None, weight: float = 1.0) -> Column:
    """z(external) - weight * z(|own|), by the statistics of the pairs in `train`; without it nothing is z-scored."""
    size = np.abs(own)
    if train is None:
        return external - weight * size
    return standardised(external, train) - weight * standardised(size, train)
