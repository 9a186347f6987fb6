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
from mixdpo_ray.judging.client import EndpointClient
from mixdpo_ray.judging.question import ChatQuestion, RequestBody, request_body
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.recipe.endpoint import EndpointSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sample import SampleSettings
from mixdpo_ray.sampling.engine import DRAWN, AskedAnswer
from mixdpo_ray.sampling.prompts import AskedPrompt, with_system_prompt

SECONDS_IN_FLIGHT = 1.0  # what was answered meanwhile is written
SEED_BITS = 31


class HttpEngine:
    def __init__(self, recipe: Recipe):
        self.recipe, self.settings, self.cpus = recipe, recipe.answers.sample, 2
        self.model = self.settings.http.model or self.settings.model or recipe.model.path
        self.endpoint = self.settings.http.model_copy(update={"model": self.model})
        self.unanswered: dict[str, int] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters only where there are some: earlier versions knew none, and their tables are found."""
        parameters = {"parameters": self.endpoint.parameters} if self.endpoint.parameters else {}
        return {"engine": "http", "url": self.endpoint.url, "name": self.model, **parameters}

    def refused(self, prompts: Sequence[AskedPrompt]) -> list[Refusal]:
        """The server will say."""
        return []

    def answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        say(f"sample: {len(asked):,} answers to ask {self.endpoint.url} for, {self.endpoint.at_once} at once")
        self.unanswered = {}
        return self._answers(asked)

    def _answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        asking = 2 * self.endpoint.at_once  # the next ones are there when some are answered
        kind = ray.remote(_Asker).options(max_concurrency=asking, num_cpus=1)
        actor = kind.remote(self.endpoint)
        try:
            with plain_errors():
                yield from self._as_they_come(actor, asked, asking)
        finally:
            ray.kill(actor)

    def _as_they_come(self, actor: Any, asked: Sequence[AskedAnswer], asking: int) -> Iterator[pa.Table]:
        bodies = ((one, request_body(question_of(one, self.settings), self.endpoint)) for one in asked)
        open_questions: dict[Any, AskedAnswer] = {}
        error: ray.exceptions.RayTaskError | None = None
        while True:
            if error is None:
                for one, body in islice(bodies, asking - len(open_questions)):
                    open_questions[actor.ask.remote(body)] = one
            if not open_questions:
                break
            together = min(len(open_questions), self.endpoint.at_once)
            done, _ = ray.wait(list(open_questions), num_returns=together, timeout=SECONDS_IN_FLIGHT)
            rows = []
            for reference in done:
                one = open_questions.pop(reference)
                try:
                    reply = ray.get(reference)
                except ray.exceptions.RayTaskError as failed:  # what is under way is waited for: it is paid
                    error = error or failed
                    continue
                if reply.failure:
                    self.unanswered[reply.failure] = self.unanswered.get(reply.failure, 0) + 1
                else:
                    rows.append(_row(one, reply))
            if rows:
                yield pa.Table.from_pylist(rows, DRAWN)
        if error is not None:
            raise error


def question_of(one: AskedAnswer, settings: SampleSettings) -> ChatQuestion:
    from mixdpo_ray.training.keyed_sampling import key_seed

    decoding = settings.decoding
    own = one.prompt.template.arguments
    extra = {"stop": list(decoding.stop), "tools": own.pop("tools", None)}
    extra["chat_template_kwargs"] = {**settings.chat_template_kwargs, **own}
    return ChatQuestion(
        with_system_prompt(one.prompt.messages, settings.system_prompt),
        max_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        parameters={
            "top_p": decoding.top_p,
            "seed": key_seed(one.prompt_id, one.draw, decoding.seed) % (1 << SEED_BITS),
            **{name: value for name, value in extra.items() if value},
        },
    )


def _row(one: AskedAnswer, reply: ChatReply) -> dict[str, Any]:
    return {
        "prompt_id": one.prompt_id,
        "draw": one.draw,
        "answer": reply.text,
        "tokens": reply.output_tokens,
        "token_ids": None,
        "finish": reply.finish or "stop",
    }


class _Asker:
    """The client, on the node that asks; Ray runs its questions in one event loop."""

    def __init__(self, settings: EndpointSettings):
        self.settings = settings
        self._client: EndpointClient | None = None

    async def ask(self, body: RequestBody) -> ChatReply:
        """An error of a first question keeps its line; that of an actor which cannot be made would not."""
        self._client = self._client or EndpointClient(self.settings)
        return await self._client.ask(body)
