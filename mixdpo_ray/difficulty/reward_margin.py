"""Reward margin: what a reward model gives the chosen answer, minus what it gives the rejected one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, MetricInputs, ModelMetric, PairScorer
from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa

REWARD_MODEL = "metrics.reward_margin.model"


class RewardMargin(ModelMetric):
    """Score of the chosen answer minus score of the rejected one, by a reward model."""

    needs: ClassVar[str] = "a sequence-classification reward model"
    columns: ClassVar[tuple[str, ...]] = ("reward_chosen", "reward_rejected")

    max_length: int = Field(4096, ge=2, description="Tokens; of longer texts the beginning is cut")

    def scorer(self, policy: ModelSettings, device: str) -> PairScorer:
        import torch
        from transformers import AutoModelForSequenceClassification

        from mixdpo_ray.difficulty.text_batch import answered_features, longest, padded, padding_token
        from mixdpo_ray.difficulty.texts import Texts
        from mixdpo_ray.training.model import load_pretrained
        from mixdpo_ray.training.tokenizer import load_tokenizer

        settings = self.scoring_model(policy)
        texts, tokenizer = Texts(load_tokenizer(policy)), load_tokenizer(settings, REWARD_MODEL)
        model, found = load_pretrained(
            AutoModelForSequenceClassification, settings, REWARD_MODEL, output_loading_info=True
        )
        _refuse_what_is_no_reward_model(self.model, model.config.num_labels, sorted(found["missing_keys"]))
        model, room = model.to(device).eval(), longest(tokenizer, self.max_length)

        def score(rows: pa.Table) -> dict[str, Any]:
            prompts = [texts.prompt(ids) for ids in rows["prompt_ids"].to_pylist()]
            answers = [texts.answer(ids) for name in ("chosen", "rejected") for ids in rows[f"{name}_ids"].to_pylist()]
            features = answered_features(tokenizer, prompts * 2, answers, room)
            padding = padding_token(tokenizer, features)
            model.config.get_text_config().pad_token_id = padding
            with torch.inference_mode():
                rewards = model(**padded(features, padding, device)).logits[:, 0].float().cpu().numpy()
            return dict(zip(self.columns, (rewards[: len(rows)], rewards[len(rows) :]), strict=True))

        return score

    def values(self, facts: MetricInputs) -> Column:
        return facts.scores["reward_chosen"] - facts.scores["reward_rejected"]


def _refuse_what_is_no_reward_model(path: str, outputs: int, untrained: list[str]) -> None:
    if untrained:
        raise ModelError(
            f"{REWARD_MODEL} {path!r} has no trained weights for {untrained[0]}, so its scores would be random: give a "
            "reward model, not a language model"
        )
    if outputs != 1:
        raise ModelError(
            f"{REWARD_MODEL} {path!r} gives {outputs} numbers for a text and a reward is one: give another model"
        )
