"""DCRM: reward margin per distance of the answers. The distance counts edited tokens and the gap of log-probs.

Reconstructed from the paper's prose: (sigmoid(h) - 1/2) / (edits + |rc - rr| + epsilon).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs, PairScorer, language_model
from mixdpo_ray.pairs.edit_distance import edit_distance
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from mixdpo_ray.training.model_loading import ModelLoading


class DCRM(Formula):
    """Reward margin through a sigmoid, divided by how far apart the answers are in tokens and log-probs."""

    needs: ClassVar[str] = "another metric as the reward margin; log-probs of one model; edit distances"
    experimental: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("edits",)
    applied_later: ClassVar[tuple[str, ...]] = ("reward", "model", "normalised", "epsilon")

    reward: str = Field("reward_margin", description="The metric that is the margin of rewards")
    model: str | None = Field(None, description="Whose log-probs are compared; by default the policy before training")
    normalised: bool = Field(False, description="Divide edits by the length of the longer answer")
    epsilon: float = Field(1.0, gt=0, description="Added to the distance")
    max_tokens: int = Field(2048, ge=1, description="Edits are counted among so many first tokens of each answer")

    def others(self) -> tuple[str, ...]:
        return (self.reward,)

    def logps_of(self, policy: ModelSettings) -> tuple[ModelSettings, ...]:
        return (language_model(policy, self.model),)

    def scorer(self, policy: ModelSettings, loading: ModelLoading) -> PairScorer:
        def count(rows: pa.Table) -> dict[str, Any]:
            pairs = zip(rows["chosen_ids"].to_pylist(), rows["rejected_ids"].to_pylist(), strict=True)
            return {"edits": [edit_distance(one[: self.max_tokens], two[: self.max_tokens]) for one, two in pairs]}

        return count

    def values(self, facts: MetricInputs) -> Column:
        edits = facts.scores["edits"]
        if self.normalised:
            edits = edits / np.minimum(np.maximum(facts.chosen_length, facts.rejected_length), self.max_tokens)
        gap = np.abs(facts.logps[0].chosen - facts.logps[0].rejected)
        return distance_calibrated_margin(facts.metrics[self.reward], edits, gap, self.epsilon)


def distance_calibrated_margin(reward: Column, edits: Column, gap: Column, epsilon: float = 1.0) -> Column:
    return np.tanh(reward / 2) / 2 / (edits + gap + epsilon)  # sigmoid(h) - 1/2, without overflow
