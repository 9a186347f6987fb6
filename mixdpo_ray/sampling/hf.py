"""The engine `hf`: copies of the model on the cluster's CPUs or GPUs, by transformers.

Prompts are rendered and tokenised on the driver, so that what cannot be answered is known before Ray starts. Batches
hold prompts of like length, the longest first: memory runs out at once or never, and then a batch is halved.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.actor_pool import Pool, answers_to
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.scoring_way import scored_model
from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.tokens import TEMPLATE_ERRORS, control_tokens
from mixdpo_ray.pairs.turns import message_texts
from mixdpo_ray.preparation.tokenizer_digest import WEIGHTS
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import DRAWN, AskedAnswer
from mixdpo_ray.sampling.model import SETTING, sampled_model, weights_identity
from mixdpo_ray.sampling.prompts import AskedPrompt, with_system_prompt
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest
from mixdpo_ray.training.vocabulary import check_vocabulary

if TYPE_CHECKING:
    from mixdpo_ray.training.keyed_sampling import AskedRow, DrawnAnswer
    from mixdpo_ray.training.model_loading import ModelLoading


class HfEngine:
    def __init__(self, recipe: Recipe):
        self.settings, self._model = recipe.answers.sample, sampled_model(recipe)
        self.recipe = recipe.model_copy(update={"model": self._model})
        say(f"sample: loading the tokenizer of {self._model.tokenizer or self._model.path}")
        with without_weights(self._model) as here:
            where = SETTING if recipe.answers.sample.model else ""
            self._tokenizer, self._context = load_tokenizer(here, where), context_of(here)
            if not self._tokenizer.chat_template:
                raise ModelError(
                    f"tokenizer {self._model.tokenizer or self._model.path} has no chat template: name the model as "
                    "model.path, and set model.chat_template"
                )
        self._ids: dict[str, list[int]] = {}

    @property
    def model(self) -> str:
        return self._model.path

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "engine": "hf",
            "weights": weights_identity(self._model),
            "tokenizer": tokenizer_digest(self._tokenizer),
            **self._model.model_dump(include={"dtype", "attn_implementation"}),
        }

    @property
    def unanswered(self) -> Mapping[str, int]:
        return {}

    @property
    def workers(self) -> int:
        cluster = self.recipe.cluster
        return self.settings.workers or cluster.reference_workers or cluster.fewest_workers

    @property
    def cpus(self) -> int:
        """Enough for copies of the model, and for the workers that share one in shards."""
        return (
            max(self.workers, math.ceil(self.recipe.cluster.fewest_workers * self.recipe.cluster.cpus_per_worker)) + 1
        )

    def refused(self, prompts: Sequence[AskedPrompt]) -> list[Refusal]:
        special, found = control_tokens(self._tokenizer), []
        for prompt in prompts:
            texts = [text for message in prompt.messages for text in message_texts(message)]
            if any(special.search(text) for text in (*texts, prompt.template.tools, prompt.template.settings)):
                found.append(Refusal(prompt.file, prompt.row, "control_token"))
                continue
            ids = self._tokenised(prompt)
            if isinstance(ids, str):
                found.append(Refusal(prompt.file, prompt.row, ids))
            else:
                self._ids[prompt.prompt_id] = ids
        check_vocabulary(self._model, max((max(ids) for ids in self._ids.values()), default=0))
        return found

    def answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        batches = [{"asked": json.dumps(batch)} for batch in self._batches(asked)]
        workers = min(self.workers, len(batches))
        pool = Pool(
            title="sample",
            workers="sampling workers",
            actor=HfWorker,
            arguments=(self._model, SETTING if self.settings.model else "model.path", self.settings.decoding),
            gpu=uses_gpu(self.recipe.cluster),
            settings=self.recipe.cluster,
            scored=scored_model(self.recipe, self._model, self._batch_tokens(asked), cached=True),
        )
        say(f"sample: {len(asked):,} answers to draw, by {pool.workers_text(workers)}")
        return answers_to(pool, batches, workers, at_once=1)

    def by_length(self, asked: Sequence[AskedAnswer]) -> list[AskedAnswer]:
        """The longest prompts first, and the answers to one prompt side by side."""
        return sorted(asked, key=lambda one: (-len(self._ids[one.prompt_id]), one.prompt_id, one.draw))

    def _tokenised(self, prompt: AskedPrompt) -> list[int] | str:
        """Its ids, or why it has none."""
        from mixdpo_ray.training.generation import chat_prompt_ids

        messages = with_system_prompt(prompt.messages, self.settings.system_prompt)
        try:
            arguments = {**self.settings.chat_template_kwargs, **prompt.template.arguments}
            ids = chat_prompt_ids(self._tokenizer, messages, **arguments)
        except TEMPLATE_ERRORS:
            return "template_refuses_turns"
        return "empty_prompt" if not ids else "prompt_too_long" if self._room(ids) == 0 else ids

    def _room(self, ids: Sequence[int]) -> int | None:
        """Tokens that the model can read behind a prompt; None where its configuration does not say."""
        return None if self._context is None else max(0, self._context - len(ids))

    def asked_rows(self, prompts: Sequence[AskedPrompt], answers_each: int) -> list[list[Any]]:
        """The fields of a keyed_sampling.AskedRow, of every answer to prompts that were not refused."""
        rows = [[one.prompt_id, self._ids[one.prompt_id], self._room(self._ids[one.prompt_id])] for one in prompts]
        return [[prompt_id, draw, ids, room] for prompt_id, ids, room in rows for draw in range(answers_each)]

    def _batch_tokens(self, asked: Sequence[AskedAnswer]) -> int:
        """The most tokens of a batch, prompts and answers together."""
        longest = max(len(self._ids[one.prompt_id]) for one in asked)
        return self.settings.batch_size * (longest + self.settings.decoding.max_new_tokens)

    def _batches(self, asked: Sequence[AskedAnswer]) -> Iterator[list[list[Any]]]:
        """Answers to one prompt side by side: in a batch it is read once."""
        ids = self._ids
        ordered = self.by_length(asked)
        rows = [[one.prompt_id, one.draw, ids[one.prompt_id], self._room(ids[one.prompt_id])] for one in ordered]
        for first in range(0, len(rows), self.settings.batch_size):
            yield rows[first : first + self.settings.batch_size]


@contextmanager
def without_weights(model: ModelSettings) -> Iterator[ModelSettings]:
    """The model's small files on this machine's disk, where a training left it in an object store."""
    if storage.is_local(model.path):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in storage.names(model.path):
            if not name.endswith(WEIGHTS):
                storage.copy(storage.join(model.path, name), f"{folder}/{name}")
        yield model.model_copy(update={"path": folder})


def context_of(model: ModelSettings) -> int | None:
    """How many tokens the model was made for."""
    from transformers import AutoConfig

    from mixdpo_ray.training.hub import brief_hub

    with brief_hub(model.path):
        config = AutoConfig.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    return getattr(config.get_text_config(), "max_position_embeddings", None)


class HfWorker:
    """One copy of the model."""

    def __init__(self, model: ModelSettings, setting: str, decoding: DecodingSettings, loading: ModelLoading):
        from mixdpo_ray.scoring.reference import check_room, fetched
        from mixdpo_ray.training.model import load_model

        self.loading, self.decoding = loading, decoding
        with fetched(model) as here:
            check_room(here, loading, "the model")
            self.tokenizer = load_tokenizer(here)
            self.model = loading.load(lambda: load_model(here, setting), here.dtype)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        from mixdpo_ray.training.keyed_sampling import AskedRow

        rows = [AskedRow(*row) for row in json.loads(str(batch["asked"][0]))]
        return _table(rows, self.drawn(rows, self.decoding))

    def drawn(self, rows: Sequence[AskedRow], decoding: DecodingSettings, likeliest: int = 0) -> list[DrawnAnswer]:
        """Half of them at a time where memory runs out: an answer does not depend on its batch."""
        import torch

        from mixdpo_ray.training.keyed_sampling import sample_answers

        try:
            return sample_answers(self.model, self.tokenizer, rows, decoding, likeliest, self.loading)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1 or self.loading.sharded:
                raise
        torch.cuda.empty_cache()  # behind the handler: the exception held what the batch had in memory
        half = len(rows) // 2
        return [*self.drawn(rows[:half], decoding, likeliest), *self.drawn(rows[half:], decoding, likeliest)]


def _table(rows: Sequence[AskedRow], drawn: Sequence[DrawnAnswer]) -> pa.Table:
    columns = {
        "prompt_id": [row.prompt_id for row in rows],
        "draw": [row.draw for row in rows],
        "answer": [answer.text for answer in drawn],
        "tokens": [len(answer.token_ids) for answer in drawn],
        "token_ids": [answer.token_ids for answer in drawn],
        "finish": [answer.finish for answer in drawn],
    }
    return pa.table(columns, schema=DRAWN)
