"""Reward margin: what a reward model gives the chosen answer, minus what it gives the rejected one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, MetricInputs, ModelMetric, PairScorer
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from mixdpo_ray.training.model_loading import ModelLoading

REWARD_MODEL = "metrics.reward_margin.model"


class RewardMargin(ModelMetric):
    """Score of the chosen answer minus score of the rejected one, by a reward model."""

    needs: ClassVar[str] = "a sequence-classification reward model"
    columns: ClassVar[tuple[str, ...]] = ("reward_chosen", "reward_rejected")
    loads: ClassVar[str] = "AutoModelForSequenceClassification"

    max_length: int = Field(4096, ge=2, description="Tokens; of longer texts the beginning is cut")

    def scorer(self, policy: ModelSettings, loading: ModelLoading) -> PairScorer:
        from mixdpo_ray.difficulty.reward_model import RewardModel
        from mixdpo_ray.difficulty.texts import Texts
        from mixdpo_ray.training.tokenizer import load_tokenizer

        texts = Texts(load_tokenizer(policy))
        model = RewardModel(self.scoring_model(policy), REWARD_MODEL, self.max_length, loading)

        def score(rows: pa.Table) -> dict[str, Any]:
            prompts = [texts.prompt(ids) for ids in rows["prompt_ids"].to_pylist()]
            answers = [texts.answer(ids) for name in ("chosen", "rejected") for ids in rows[f"{name}_ids"].to_pylist()]
            rewards = model(prompts * 2, answers)
            return dict(zip(self.columns, (rewards[: len(rows)], rewards[len(rows) :]), strict=True))

        return score

    def values(self, facts: MetricInputs) -> Column:
        return facts.scores["reward_chosen"] - facts.scores["reward_rejected"]
