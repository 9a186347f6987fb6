"""Embedding distance: how far apart an encoder puts the two answers, as one minus the cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, MetricInputs, ModelMetric, PairScorer
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from mixdpo_ray.training.model_loading import ModelLoading

WHERE = "metrics.embedding_distance.model"


class EmbeddingDistance(ModelMetric):
    """One minus the cosine of the two answers' embeddings; which side is easy is a setting."""

    needs: ClassVar[str] = "an encoder"
    columns: ClassVar[tuple[str, ...]] = ("distance",)
    applied_later: ClassVar[tuple[str, ...]] = ("easy",)

    pooling: Literal["cls", "mean"] = Field("cls", description="The first token's state, or the mean of all of them")
    text: Literal["answer", "prompt_and_answer"] = Field("answer", description="What is embedded")
    easy: Literal["far", "near"] = Field("far", description="Which pairs are easy; the paper does not say")
    max_length: int = Field(512, ge=2, description="Tokens; of longer texts the end is cut")

    def scorer(self, policy: ModelSettings, loading: ModelLoading) -> PairScorer:
        import torch
        from transformers import AutoModel

        from mixdpo_ray.difficulty.text_batch import longest, padded, padding_token, plain_features
        from mixdpo_ray.difficulty.texts import Texts
        from mixdpo_ray.training.model import load_pretrained
        from mixdpo_ray.training.tokenizer import load_tokenizer

        settings = self.scoring_model(policy)
        texts, tokenizer = Texts(load_tokenizer(policy)), load_tokenizer(settings, WHERE)
        model = loading.load(lambda: load_pretrained(AutoModel, settings, WHERE), settings.dtype)
        room = longest(tokenizer, self.max_length)

        def score(rows: pa.Table) -> dict[str, Any]:
            answers = [texts.answer(ids) for name in ("chosen", "rejected") for ids in rows[f"{name}_ids"].to_pylist()]
            if self.text == "prompt_and_answer":
                prompts = [texts.prompt(ids) for ids in rows["prompt_ids"].to_pylist()] * 2
                answers = [
                    "\n\n".join([*(turn["content"] for turn in prompt), answer])
                    for prompt, answer in zip(prompts, answers, strict=True)
                ]
            features = plain_features(tokenizer, answers, room)
            batch = padded(features, padding_token(tokenizer, features), loading.device)
            with torch.inference_mode():
                states = model(**batch).last_hidden_state.float()
                chosen, rejected = pooled(states, batch["attention_mask"], self.pooling).chunk(2)
            return {"distance": (1 - (chosen * rejected).sum(-1)).cpu().numpy()}

        return score

    def values(self, facts: MetricInputs) -> Column:
        distance = facts.scores["distance"]
        return distance if self.easy == "far" else -distance


def pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """States [sequences, tokens, width] -> unit vectors [sequences, width]."""
    from torch.nn.functional import normalize

    if pooling == "cls":
        return normalize(states[:, 0], dim=-1)
    weights = mask[..., None].to(states.dtype)
    return normalize((states * weights).sum(1) / weights.sum(1), dim=-1)
