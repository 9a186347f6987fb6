"""A reward model that reads a prompt and an answer: sequence classification with one output, loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

    from mixdpo_ray.training.model_loading import ModelLoading


class RewardModel:
    """Called with prompts and answers, it gives their rewards. `where`: the setting that names it."""

    def __init__(self, settings: ModelSettings, where: str, max_length: int, loading: ModelLoading):
        from transformers import AutoModelForSequenceClassification

        from mixdpo_ray.difficulty.text_batch import longest
        from mixdpo_ray.training.model import load_pretrained
        from mixdpo_ray.training.tokenizer import load_tokenizer

        self.where, self.path, self.loading = where, settings.path, loading
        self.tokenizer = load_tokenizer(settings, where)

        def read() -> Any:
            kind = AutoModelForSequenceClassification
            model, found = load_pretrained(kind, settings, where, output_loading_info=True)
            if untrained := sorted(found["missing_keys"]):
                raise ModelError(
                    f"{where} {self.path!r} has no trained weights for {untrained[0]}, so its scores would be random: "
                    "give a reward model, not a language model"
                )
            return model

        self.model, self.room = loading.load(read, settings.dtype), longest(self.tokenizer, max_length)
        if not settings.trust_remote_code:  # code of its own may score by something else than its labels
            self._refuse_unless_one(self.model.config.num_labels)

    def __call__(self, prompts: Sequence[list[Message]], answers: Sequence[str]) -> NDArray[np.float64]:
        """Half of them at a time where memory runs out."""
        import torch

        try:
            return self._rewards(prompts, answers)
        except torch.cuda.OutOfMemoryError:
            if len(answers) == 1 or self.loading.sharded:
                raise
        torch.cuda.empty_cache()  # behind the handler: the exception held what the batch had in memory
        half = len(answers) // 2
        return np.concatenate([self(prompts[:half], answers[:half]), self(prompts[half:], answers[half:])])

    def _rewards(self, prompts: Sequence[list[Message]], answers: Sequence[str]) -> NDArray[np.float64]:
        import torch

        from mixdpo_ray.difficulty.text_batch import answered_features, padded, padding_token

        features = answered_features(self.tokenizer, prompts, answers, self.room)
        padding = padding_token(self.tokenizer, features)
        self.model.config.get_text_config().pad_token_id = padding
        with torch.inference_mode():
            found = self._output(self.model(**padded(features, padding, self.loading.device)))
        return np.asarray(found.float().cpu().numpy(), np.float64)

    def _output(self, given: Any) -> Tensor:
        """[answers]; some heads of their own call it score."""
        score = getattr(given, "score", None)
        found: Tensor = given.logits if score is None else score
        found = found.reshape(len(found), -1)
        self._refuse_unless_one(found.shape[1])
        return found[:, 0]

    def _refuse_unless_one(self, outputs: int) -> None:
        if outputs != 1:
            raise ModelError(
                f"{self.where} {self.path!r} gives {outputs} numbers for a text and a reward is one: give another model"
            )
