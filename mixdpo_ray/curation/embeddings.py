"""Embeddings of the answers of a prepared table's pairs, by the actor pool; kept on disk, keyed by pair_id.

States of an encoder, or of the policy before training, say what a text is about; the policy's surprise (how likely it
finds each token of an answer, in fourteen numbers) says how good it is to a model that knows right from wrong. In the
playground two neighbours share their class of five in 63 % by surprise and in 28 to 35 % by states, where chance has
28: look at the report before you believe a transition matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.actor_pool import Pool, pairs_tokens
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.scoring_way import scored_model
from mixdpo_ray.difficulty.embedding_distance import pooled
from mixdpo_ray.difficulty.metric import language_model
from mixdpo_ray.pairs.curating import EmbeddingSettings
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.tables.keyed_table import SCORES, KeyedTable
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.model_files import model_digest, refuse_missing_folder, with_absolute_paths
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

    from mixdpo_ray.training.model_loading import ModelLoading

EMBEDDING_MODEL = "data.curate.embedding.model"
SIDES = ("chosen", "rejected")
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75)
CLEARLY = 1.0  # nats that a token lies behind the likeliest one


class EmbeddingTable(KeyedTable):
    what: ClassVar[str] = "embeddings"
    made_by: ClassVar[str] = "jobs/prepare.py"
    kind: ClassVar[pa.DataType] = pa.list_(pa.float32())
    own_columns: ClassVar[tuple[str, ...]] = SIDES

    def vectors(self, name: str, pair_ids: Sequence[str]) -> NDArray[np.float32]:
        """Those of the chosen or of the rejected answers: [pairs, width]."""
        rows = self.rows[name].take(self._rows_of(pair_ids)).combine_chunks()
        return np.asarray(rows.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(pair_ids), -1)

    def _finite(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        return np.array([np.isfinite(vector).all() for vector in column.to_numpy()], np.bool_)


def embedding_model(recipe: Recipe, settings: EmbeddingSettings) -> ModelSettings:
    policy = with_absolute_paths(recipe.model)
    if settings.model is None:
        return language_model(policy, None)
    return with_absolute_paths(
        ModelSettings.model_validate({"path": settings.model, "revision": settings.revision, "dtype": settings.dtype})
    )


def embedding_identity(recipe: Recipe, settings: EmbeddingSettings) -> dict[str, Any]:
    """What the embeddings depend on beyond the pairs."""
    model = embedding_model(recipe, settings)
    refuse_missing_folder(EMBEDDING_MODEL, model.path)
    return {
        "metric": "ds2",
        "settings": settings.model_dump(mode="json", exclude={"model", "revision"}),
        "model": model.logps_identity(),
        "weights": model_digest(model),
    }


def answer_vectors(
    recipe: Recipe, table: PreparedTable, settings: EmbeddingSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed the chosen and the rejected answers of all training pairs: [pairs, width] each."""
    content = {**embedding_identity(recipe, settings), "tokenizer": table.manifest.facts["tokenizer"]}
    name = fingerprint(content)
    folder = storage.join(storage.absolute(recipe.output.storage_path), SCORES, name)
    policy, model = with_absolute_paths(recipe.model), embedding_model(recipe, settings)
    kind = "AutoModelForCausalLM" if settings.model is None else "AutoModel"
    pool = Pool(
        title="embeddings",
        workers="workers that embed answers",
        actor=_EmbedAnswers,
        arguments=(table.folder, settings, policy, model),
        gpu=uses_gpu(recipe.cluster),
        settings=recipe.cluster,
        scored=scored_model(recipe, model, pairs_tokens(recipe) // 2, kind=kind),
    )
    with exclusive(folder):
        store = EmbeddingTable.create(folder, name, content)
        actor_pool.cover_positions(pool, table, store, {"train": np.arange(table.rows("train"))})
    ids = table.index("train").pair_id
    return store.vectors("chosen", ids), store.vectors("rejected", ids)


class _EmbedAnswers:
    """One copy of the model."""

    def __init__(
        self,
        folder: str,
        settings: EmbeddingSettings,
        policy: ModelSettings,
        model: ModelSettings,
        loading: ModelLoading,
    ):
        self.table = PreparedTable.open(folder)
        embedder = _encoder if settings.model is not None else _surprise if settings.kind == "surprise" else _states
        self.embed = embedder(settings, policy, model, loading)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        rows = self.table.read("train", np.sort(np.asarray(batch["positions"][0], np.int64)))
        found = {name: self.embed(rows["prompt_ids"].to_pylist(), rows[f"{name}_ids"].to_pylist()) for name in SIDES}
        columns = {name: pa.array(list(vectors), pa.list_(pa.float32())) for name, vectors in found.items()}
        return pa.table({"pair_id": rows["pair_id"], **columns})


def _encoder(settings: EmbeddingSettings, policy: ModelSettings, model: ModelSettings, loading: ModelLoading) -> Any:
    """A model that reads text by its own tokenizer."""
    import torch
    from transformers import AutoModel

    from mixdpo_ray.difficulty.text_batch import longest, padded, padding_token, plain_features
    from mixdpo_ray.difficulty.texts import Texts
    from mixdpo_ray.training.model import load_pretrained
    from mixdpo_ray.training.tokenizer import load_tokenizer

    texts, tokenizer = Texts(load_tokenizer(policy)), load_tokenizer(model, EMBEDDING_MODEL)
    encoder = loading.load(lambda: load_pretrained(AutoModel, model, EMBEDDING_MODEL), model.dtype)
    room = longest(tokenizer, settings.max_length)

    def embed(prompts: list[list[int]], answers: list[list[int]]) -> NDArray[np.float32]:
        told = [texts.answer(ids) for ids in answers]
        if settings.text == "prompt_and_answer":
            asked = ["\n\n".join(turn["content"] for turn in texts.prompt(ids)) for ids in prompts]
            told = [f"{prompt}\n\n{answer}" for prompt, answer in zip(asked, told, strict=True)]
        features = plain_features(tokenizer, told, room)
        batch = padded(features, padding_token(tokenizer, features), loading.device)
        with torch.inference_mode():
            states, mask = encoder(**batch).last_hidden_state.float(), batch["attention_mask"]
            return _numpy(_pooled(states, mask, settings.pooling))

    return embed


def _states(settings: EmbeddingSettings, policy: ModelSettings, model: ModelSettings, loading: ModelLoading) -> Any:
    """The policy before training, which reads the table's tokens; the states of the answer's tokens count."""
    import torch

    from mixdpo_ray.training.model import load_model

    reader = loading.load(lambda: load_model(model, EMBEDDING_MODEL), model.dtype)

    def embed(prompts: list[list[int]], answers: list[list[int]]) -> NDArray[np.float32]:
        if settings.text == "answer":
            prompts = [[] for _ in prompts]
        ids, mask, of_answer = _batch(prompts, answers, loading.device)
        with torch.inference_mode():
            states = reader(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1].float()
            return _numpy(_pooled(states, of_answer, settings.pooling))

    return embed


def _surprise(settings: EmbeddingSettings, policy: ModelSettings, model: ModelSettings, loading: ModelLoading) -> Any:
    """The policy before training: how likely it finds the answer's tokens."""
    import torch

    from mixdpo_ray.training.model import load_model

    reader = loading.load(lambda: load_model(model, EMBEDDING_MODEL), model.dtype)

    def embed(prompts: list[list[int]], answers: list[list[int]]) -> NDArray[np.float32]:
        ids, mask, _ = _batch(prompts, answers, loading.device)
        with torch.inference_mode():
            logits = reader(input_ids=ids, attention_mask=mask).logits
            found = []
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
                first, last = len(prompt) - 1, len(prompt) + len(answer) - 1
                logps = torch.log_softmax(logits[row, first:last].float(), -1)
                found.append(surprise_of(logps, torch.tensor(answer, device=loading.device)))
            return _numpy(torch.stack(found))

    return embed


def surprise_of(logps: Tensor, tokens: Tensor) -> Tensor:
    """Fourteen numbers of an answer: `logps` [tokens, vocabulary] where each token stands, and which stand there."""
    import torch

    own = logps.gather(-1, tokens[:, None])[:, 0]
    behind = logps.max(-1).values - own
    entropy = -(logps.exp() * logps).sum(-1)
    clear = (behind > CLEARLY).float()
    numbers = [own.mean(), own.sum(), behind.mean(), behind.sum(), behind.max(), clear.mean(), clear.sum()]
    numbers += [entropy.mean(), (own + entropy).mean()]
    return torch.cat([torch.quantile(own, torch.tensor(_QUANTILES, device=own.device)), torch.stack(numbers)])


def _batch(prompts: list[list[int]], answers: list[list[int]], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids padded on the right, what is no padding, and what is of the answer: [rows, longest] each."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask, of_answer = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, :end] = 1
        of_answer[row, len(prompt) : end] = 1
    return ids.to(device), mask.to(device), of_answer.to(device)


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    if pooling != "last":
        return pooled(states, mask, pooling)
    import torch

    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return torch.nn.functional.normalize(states[torch.arange(len(states), device=states.device), last], dim=-1)


def _numpy(vectors: Tensor) -> NDArray[np.float32]:
    return np.asarray(vectors.float().cpu().numpy(), np.float32)
