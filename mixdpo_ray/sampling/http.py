"""The engine `http`: a server that speaks OpenAI's protocol, asked by one actor that keeps many questions open.

The server draws by itself. It is told a seed for every answer, and what it makes of it is its own affair: answers are
stored as they come, under the key that was asked for, and none is asked for twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import ray

from mixdpo_ray.bar import say
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sample import HttpSettings, SampleSettings
from mixdpo_ray.sampling.chat_client import ChatClient, ServerAnswer
from mixdpo_ray.sampling.engine import DRAWN, AskedAnswer
from mixdpo_ray.sampling.prompts import AskedPrompt, with_system_prompt

SECONDS_IN_FLIGHT = 1.0  # what was answered meanwhile is written
SEED_BITS = 31


class HttpEngine:
    def __init__(self, recipe: Recipe):
        self.recipe, self.settings, self.cpus = recipe, recipe.sample, 2
        self.model = self.settings.http.model or self.settings.model or recipe.model.path
        self.unanswered: dict[str, int] = {}

    @property
    def identity(self) -> dict[str, Any]:
        return {"engine": "http", "url": self.settings.http.url, "name": self.model}

    def refused(self, prompts: Sequence[AskedPrompt]) -> list[Refusal]:
        """The server will say."""
        return []

    def answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        say(f"sample: {len(asked):,} answers to ask {self.settings.http.url} for, {self.settings.http.at_once} at once")
        self.unanswered = {}
        return self._answers(asked)

    def _answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        asking = 2 * self.settings.http.at_once  # the next ones are there when some are answered
        kind = ray.remote(_Asker).options(max_concurrency=asking, num_cpus=1)
        actor = kind.remote(self.settings.http)
        try:
            with plain_errors():
                yield from self._as_they_come(actor, asked, asking)
        finally:
            ray.kill(actor)

    def _as_they_come(self, actor: Any, asked: Sequence[AskedAnswer], asking: int) -> Iterator[pa.Table]:
        bodies = ((one, body_of(one, self.model, self.settings)) for one in asked)
        open_questions: dict[Any, AskedAnswer] = {}
        while True:
            for one, body in islice(bodies, asking - len(open_questions)):
                open_questions[actor.ask.remote(body)] = one
            if not open_questions:
                return
            together = min(len(open_questions), self.settings.http.at_once)
            done, _ = ray.wait(list(open_questions), num_returns=together, timeout=SECONDS_IN_FLIGHT)
            said = [(open_questions.pop(reference), ray.get(reference)) for reference in done]
            for _, answer in said:
                if answer.content is None:
                    self.unanswered[answer.reason] = self.unanswered.get(answer.reason, 0) + 1
            rows = [_row(one, answer.content) for one, answer in said if answer.content is not None]
            if rows:
                yield pa.Table.from_pylist(rows, DRAWN)


def body_of(one: AskedAnswer, model: str, settings: SampleSettings) -> dict[str, Any]:
    """The question as the server is sent it."""
    from mixdpo_ray.training.keyed_sampling import key_seed

    decoding = settings.decoding
    extra = {"stop": list(decoding.stop), "chat_template_kwargs": settings.chat_template_kwargs}
    return {
        "model": model,
        "messages": with_system_prompt(one.prompt.messages, settings.system_prompt),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_tokens": decoding.max_new_tokens,
        "seed": key_seed(one.prompt_id, one.draw, decoding.seed) % (1 << SEED_BITS),
        **{name: value for name, value in extra.items() if value},
    }


def _row(one: AskedAnswer, content: dict[str, Any]) -> dict[str, Any]:
    choice = content["choices"][0]
    return {
        "prompt_id": one.prompt_id,
        "draw": one.draw,
        "answer": choice.get("message", {}).get("content") or "",
        "tokens": (content.get("usage") or {}).get("completion_tokens"),
        "token_ids": None,
        "finish": choice.get("finish_reason") or "stop",
    }


class _Asker:
    """The client, on the node that asks; Ray runs its questions in one event loop."""

    def __init__(self, settings: HttpSettings):
        self.settings = settings
        self._client: ChatClient | None = None

    async def ask(self, body: dict[str, Any]) -> ServerAnswer:
        """An error of a first question keeps its line; that of an actor which cannot be made would not."""
        self._client = self._client or ChatClient(self.settings)
        return await self._client.ask(body)
