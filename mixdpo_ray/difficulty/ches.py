"""CHES, centred hidden embedding similarity: predicts how far training pushes the chosen answer down too.

S is the sum of the last layer's states that predict an answer's tokens: from the prompt's last token to the answer's
last but one, in float32. The two public implementations disagree there; ours is the position that the log-probs have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs, PairScorer, language_model
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from mixdpo_ray.training.batch import PairBatch
    from mixdpo_ray.training.model_loading import ModelLoading


class CHES(Formula):
    """Minus CHES: low similarity of the answers' hidden states leaves less likelihood displacement."""

    needs: ClassVar[str] = "hidden states of one model"
    columns: ClassVar[tuple[str, ...]] = ("ches", "ches_per_token")
    loads: ClassVar[str] = "AutoModelForCausalLM"
    applied_later: ClassVar[tuple[str, ...]] = ("model", "length_normalised")

    model: str | None = Field(None, description="Of the policy's tokenizer; by default the policy before training")
    length_normalised: bool = Field(True, description="LN-CHES; without it long answers look the worst")

    def scoring_model(self, policy: ModelSettings) -> ModelSettings:
        return language_model(policy, self.model)

    def scorer(self, policy: ModelSettings, loading: ModelLoading) -> PairScorer:
        import numpy as np
        import torch

        from mixdpo_ray.training.batch import TokenRows, build_batch
        from mixdpo_ray.training.logps import StatesReader
        from mixdpo_ray.training.model import load_model

        model = self.scoring_model(policy)
        reader = loading.load(lambda: StatesReader(load_model(model, "metrics.ches.model")), model.dtype)
        lie, where = loading.row_kind(packed=False), loading.torch_device

        def score(rows: pa.Table) -> dict[str, Any]:
            positions = np.arange(len(rows))
            tokens, easy = TokenRows.of(rows, positions), np.zeros(len(rows), np.bool_)
            batch = build_batch(tokens, positions, easy, None, weight=1, padding=0, device=where, rows=lie)
            with torch.inference_mode():
                sums = summed_states(reader(batch), batch)
                chosen, rejected = sums[: len(rows)], sums[len(rows) :]
                lengths = batch.lengths[: len(rows)], batch.lengths[len(rows) :]
                both = ches(chosen, rejected), ches_per_token(chosen, rejected, *lengths)
            return {name: values.cpu().numpy() for name, values in zip(self.columns, both, strict=True)}

        return score

    def values(self, facts: MetricInputs) -> Column:
        return -facts.scores["ches_per_token" if self.length_normalised else "ches"]


def summed_states(states: Tensor, batch: PairBatch) -> Tensor:
    """States [tokens, width], of those that predict a token -> their sums [sequences, width] in float32."""
    hidden = states.float()
    sequence = batch.slots // batch.longest
    return hidden.new_zeros(len(batch.lengths), hidden.shape[1]).index_add_(0, sequence, hidden)


def ches(chosen: Tensor, rejected: Tensor) -> Tensor:
    """<S+, S-> - |S+|^2, of sums [pairs, width]."""
    return (chosen * (rejected - chosen)).sum(-1)


def ches_per_token(chosen: Tensor, rejected: Tensor, chosen_length: Tensor, rejected_length: Tensor) -> Tensor:
    """<S+, S-> / (L+ L-) - |S+|^2 / L+^2."""
    return ches(chosen / chosen_length[:, None], rejected / rejected_length[:, None])
