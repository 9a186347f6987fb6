"""Implicit margin: how much more a model likes the chosen answer than the rejected one, by its own log-probs."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from mixdpo_ray.difficulty.metric import AnswerLogps, Column, Formula, MetricInputs, language_model
from mixdpo_ray.training.settings import ModelSettings


class ImplicitMargin(Formula):
    """Gap of a model's log-ratios to another model's, or of its own log-probs per token."""

    needs: ClassVar[str] = "log-probs of a model and of its start; of one model if reference-free"

    model: str | None = Field(None, description="The model whose margin it is, of the policy's tokenizer")
    against: str | None = Field(None, description="What it is compared with; by default the policy before training")
    reference_free: bool = Field(False, description="Compare means over tokens of one model, as SimPO does")

    @model_validator(mode="after")
    def _two_models(self) -> Self:
        if self.reference_free and self.against:
            raise ValueError("reference_free compares with no other model: leave against out")
        if not self.reference_free and self.model == self.against:
            raise ValueError(
                "a model compared with itself has margin 0 on every pair: give model, such as one trained by a short "
                "DPO run, or reference_free: true"
            )
        return self

    def logps_of(self, policy: ModelSettings) -> tuple[ModelSettings, ...]:
        own = language_model(policy, self.model)
        return (own,) if self.reference_free else (own, language_model(policy, self.against))

    def values(self, facts: MetricInputs) -> Column:
        if self.reference_free:
            return mean_margin(facts.logps[0], facts.chosen_length, facts.rejected_length)
        return log_ratio_gap(*facts.logps)


def log_ratio_gap(model: AnswerLogps, start: AnswerLogps) -> Column:
    """DPO's logit without beta: (c - rc) - (r - rr)."""
    return (model.chosen - start.chosen) - (model.rejected - start.rejected)


def mean_margin(model: AnswerLogps, chosen_length: Column, rejected_length: Column) -> Column:
    """c/lc - r/lr."""
    return model.chosen / chosen_length - model.rejected / rejected_length
