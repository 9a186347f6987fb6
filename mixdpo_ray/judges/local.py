"""The judge `hf`: a model on this cluster's CPUs or GPUs, whose replies are kept as those of a server are.

A reply lies under the weights, the tokenizer and all that was asked, so that another model never finds it. At
temperature 0 it is the likeliest one; otherwise its noise follows from its question, and asking again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import pyarrow as pa

from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.actor_pool import Pool, answers_to, until_done
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.scoring_way import scored_model
from mixdpo_ray.errors import ModelError
from mixdpo_ray.judging.asking import AskingProgress
from mixdpo_ray.judging.budget import Cost
from mixdpo_ray.judging.question import ChatQuestion, answer_address
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.judging.reply_store import ReplyStore, reply_folder
from mixdpo_ray.pairs.tokens import TEMPLATE_ERRORS, control_tokens
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.hf import HfWorker, context_of, without_weights
from mixdpo_ray.sampling.model import named_model, weights_identity
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest

JUDGE = "answers.judge.model"
REPLIES = pa.schema({"address": pa.string(), "reply": pa.string()})


class LocalJudge:
    def __init__(self, recipe: Recipe):
        """Load its tokenizer; the model is loaded where it works."""
        settings = recipe.answers.judge
        assert settings, "open_judge refuses a recipe without a judge"
        assert settings.model is not None, "recipe/judge.py refuses the engine without a model"
        self.recipe, self.settings, self.cluster, self.name = recipe, settings, recipe.cluster, settings.model
        self._model = named_model(recipe.model, settings.model, settings.revision, JUDGE)
        with without_weights(self._model) as here:
            self._tokenizer, self._context = load_tokenizer(here, JUDGE), context_of(here)
        if not self._tokenizer.chat_template:
            raise ModelError(f"{JUDGE} {self.name} has no chat template: a judge is a model for chats, name one")
        self._special = control_tokens(self._tokenizer)
        self.folder = reply_folder(recipe.output.storage_path, self._model.path)
        self.progress = AskingProgress()

    @classmethod
    @contextmanager
    def of_recipe(cls, recipe: Recipe) -> Iterator[Self]:
        yield cls(recipe)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides a reply besides its question."""
        return {
            "weights": weights_identity(self._model),
            "tokenizer": tokenizer_digest(self._tokenizer),
            **self._model.model_dump(include={"dtype", "attn_implementation"}),
        }

    def ask(self, questions: Sequence[ChatQuestion], *, title: str = "judge", unit: str = "verdict") -> list[ChatReply]:
        addresses = [self._address(question) for question in questions]
        unique = dict(zip(addresses, questions, strict=True))
        with exclusive(self.folder):
            store = ReplyStore(self.folder)
            asked = [self._asked(address, one) for address, one in unique.items() if address not in store]
            rows = [one for one in asked if isinstance(one, _AskedReply)]
            refused = dict(one for one in asked if not isinstance(one, _AskedReply))
            with Counter(title, unit, len(unique)) as counter:

                def attempt() -> None:
                    left = [row for row in rows if row.address not in store]
                    counter.reach(len(unique) - len(left), len(unique))
                    for replies in self._replies(left, title) if left else ():
                        store.append(replies)
                        counter.add(len(replies))

                until_done(attempt, "judging workers", "answers.judge.workers")
        replies = {address: refused.get(address) or store.get(address) or ChatReply() for address in unique}
        self._count(len(unique) - len(asked), [replies[row.address] for row in rows], len(refused))
        return [replies[address] for address in addresses]

    def _address(self, question: ChatQuestion) -> str:
        asked = {
            "messages": [dict(message) for message in question.messages],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_logprobs": question.top_logprobs,
        }
        return answer_address({**self.identity, **asked}, question.draw)

    def _asked(self, address: str, question: ChatQuestion) -> _AskedReply | tuple[str, ChatReply]:
        """What the model reads, or why it cannot."""
        from mixdpo_ray.training.generation import chat_prompt_ids

        if any(self._special.search(str(message["content"])) for message in question.messages):
            return address, ChatReply.failed("what is to be judged holds a control token of the judge's own")
        try:
            ids = chat_prompt_ids(self._tokenizer, question.messages)
        except TEMPLATE_ERRORS:
            return address, ChatReply.failed("the judge's chat template refuses the turns of the question")
        room = None if self._context is None else max(0, self._context - len(ids))
        if room == 0:
            return address, ChatReply.failed("the question is longer than the judge can read")
        return _AskedReply(address, tuple(ids), room, question)

    def _replies(self, rows: Sequence[_AskedReply], title: str) -> Iterator[list[tuple[str, ChatReply]]]:
        """Batch by batch, those of like length together, the longest first."""
        ordered = sorted(rows, key=lambda row: (row.kind, -len(row.ids), row.address))
        batches: list[dict[str, Any]] = []
        for kind, group in groupby(ordered, key=lambda row: row.kind):
            members = [[row.address, row.question.draw, list(row.ids), row.room] for row in group]
            batches += [
                {"kind": json.dumps(kind), "asked": json.dumps(members[first : first + self.settings.batch_size])}
                for first in range(0, len(members), self.settings.batch_size)
            ]
        workers = min(
            self.settings.workers or self.cluster.reference_workers or self.cluster.fewest_workers, len(batches)
        )
        tokens = self.settings.batch_size * max(len(row.ids) + row.question.max_tokens for row in rows)
        pool = Pool(
            title=title,
            workers="judging workers",
            actor=_JudgeWorker,
            arguments=(self._model, JUDGE, DecodingSettings()),
            gpu=uses_gpu(self.cluster),
            settings=self.cluster,
            scored=scored_model(self.recipe, self._model, tokens, cached=True),
        )
        say(f"{title}: {len(rows):,} questions to {self.name}, by {pool.workers_text(workers)}")
        for table in answers_to(pool, batches, workers, at_once=1):
            yield [(row["address"], ChatReply.from_row(json.loads(row["reply"]))) for row in table.to_pylist()]

    def _count(self, cached: int, replies: Sequence[ChatReply], failed: int) -> None:
        before = self.progress
        spent = Cost(
            len(replies), sum(one.input_tokens or 0 for one in replies), sum(one.output_tokens or 0 for one in replies)
        )
        self.progress = AskingProgress(
            before.answered + len(replies), before.failed + failed, before.cached + cached, before.spent + spent
        )


@dataclass(frozen=True)
class _AskedReply:
    address: str
    ids: tuple[int, ...]
    room: int | None  # tokens that the model can read behind the question
    question: ChatQuestion

    @property
    def kind(self) -> tuple[int, float, int]:
        """What a batch must have in common."""
        return self.question.max_tokens, self.question.temperature, self.question.top_logprobs


class _JudgeWorker(HfWorker):
    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        from mixdpo_ray.training.keyed_sampling import AskedRow

        rows = [AskedRow(*row) for row in json.loads(str(batch["asked"][0]))]
        max_tokens, temperature, likeliest = json.loads(str(batch["kind"][0]))
        decoding = DecodingSettings(max_new_tokens=max_tokens, temperature=temperature)
        replies = [
            ChatReply(
                text=drawn.text,
                finish=drawn.finish,
                tokens=((next(iter(drawn.first_logps)), drawn.first_logps),) if drawn.first_logps else (),
                input_tokens=len(row.prompt_ids),
                output_tokens=len(drawn.token_ids),
            )
            for row, drawn in zip(rows, self.drawn(rows, decoding, likeliest), strict=True)
        ]
        columns = {
            "address": [row.prompt_id for row in rows],
            "reply": [json.dumps(reply.to_row()) for reply in replies],
        }
        return pa.table(columns, schema=REPLIES)
