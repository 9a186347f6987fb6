"""Perplexity of the chosen answer under a language model."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs, language_model
from mixdpo_ray.training.settings import ModelSettings


class Perplexity(Formula):
    """Mean log-prob per token of the chosen answer, which is minus the log of its perplexity."""

    needs: ClassVar[str] = "log-probs of one model"

    model: str | None = Field(None, description="Of the policy's tokenizer; by default the policy before training")

    def logps_of(self, policy: ModelSettings) -> tuple[ModelSettings, ...]:
        return (language_model(policy, self.model),)

    def values(self, facts: MetricInputs) -> Column:
        return facts.logps[0].chosen / facts.chosen_length
