"""What actors of a pool do with a batch of answers: rewards, or sums of log-probs by the code that training uses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.rating.rated_table import numbered
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from mixdpo_ray.training.batch import TokenRows
    from mixdpo_ray.training.model_loading import ModelLoading

Ids = list[int]


class RewardWorker:
    """One copy of a reward model."""

    def __init__(self, model: ModelSettings, where: str, max_length: int, loading: ModelLoading):
        from mixdpo_ray.difficulty.reward_model import RewardModel
        from mixdpo_ray.scoring.reference import check_room, fetched

        with fetched(model) as here:
            check_room(here, loading, "the reward model", "AutoModelForSequenceClassification")
            self.model = RewardModel(here, where, max_length, loading)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Rows of {id, [messages of the prompt, answer]}."""
        rows = json.loads(str(batch["answers"][0]))
        prompts, answers = [messages for _, (messages, _) in rows], [text for _, (_, text) in rows]
        return numbered([one for one, _ in rows], self.model(prompts, answers))


class LogpWorker:
    """One copy of a language model, with the code and the number format of training."""

    def __init__(self, model: ModelSettings, where: str, chunk_tokens: int, loading: ModelLoading):
        from mixdpo_ray.scoring.reference import check_room, fetched
        from mixdpo_ray.training.logps import Scorer
        from mixdpo_ray.training.model import load_model

        self.loading, self.chunk_tokens = loading, chunk_tokens
        with fetched(model) as here:
            check_room(here, loading, "the model that rates")
            self.scorer = loading.load(lambda: Scorer(load_model(here, where), here.packing, here.kernels), here.dtype)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Rows of {id, [ids of the prompt, ids of the answer]}."""
        rows = json.loads(str(batch["answers"][0]))
        return numbered([one for one, _ in rows], self._sums([tokens for _, tokens in rows]))

    def _sums(self, tokens: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        """Half of them at a time where memory runs out."""
        import torch

        try:
            return self._logps(tokens)
        except torch.cuda.OutOfMemoryError:
            if len(tokens) == 1 or self.loading.sharded:
                raise
        torch.cuda.empty_cache()  # behind the handler: the exception held what the batch had in memory
        half = len(tokens) // 2
        return np.concatenate([self._sums(tokens[:half]), self._sums(tokens[half:])])

    def _logps(self, tokens: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        import torch

        from mixdpo_ray.training.batch import build_batch
        from mixdpo_ray.training.logps import pair_logps

        positions = np.arange(len(tokens))
        kind, device = self.loading.row_kind(packed=self.scorer.packed), self.loading.torch_device
        hard = np.ones(len(tokens), np.bool_)  # of such a pair the batch holds the chosen answer alone
        rows = _token_rows(tokens, positions)
        batch = build_batch(rows, positions, hard, None, weight=1, padding=0, device=device, rows=kind)
        with torch.inference_mode():
            chunks = self.loading.most(-(-len(batch.targets) // self.chunk_tokens))
            sums = pair_logps(self.scorer, batch, chunks).hard_chosen
        return np.asarray(sums.double().cpu().numpy())


def _token_rows(tokens: Sequence[tuple[Ids, Ids]], positions: NDArray[np.int64]) -> TokenRows:
    from mixdpo_ray.training.batch import Ragged, TokenRows

    prompts, answers = (
        Ragged.of(pa.chunked_array([pa.array([one[side] for one in tokens], pa.list_(pa.int32()))])) for side in (0, 1)
    )
    return TokenRows(prompts, answers, answers, np.zeros(len(tokens)), positions)
