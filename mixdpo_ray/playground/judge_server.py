"""A judge on loopback that speaks OpenAI's protocol, knows the truth, and fails as it is told to.

jobs/playground_judge.py serves the playground's true quality, for trying what asks a judge without an API. The server
reads the answers that a question shows and says which is better: as a mark with the question's number, or by the
log-probs of two identifiers where those are asked for. Its faults are drawn by seeded chance, one draw a request; what
it judges depends on the question alone, so that asking again changes no verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import hashlib
import json
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.playground.truth import true_share, truthful_logps, truthful_reply

if TYPE_CHECKING:
    from aiohttp import web  # sets filters of warnings where it is imported

Truth = Callable[[str, str, str], float | None]  # of a request and two answers: the first one's share of the win
UNKNOWN = "I cannot say."
SURE = 0.9  # probability that log-probs give to the winner's identifier


@dataclass(frozen=True)
class Faults:
    """Shares of requests, and how they fail."""

    position_bias: float = 0.0  # of questions in which the answer shown first wins, whatever it is
    too_many: float = 0.0
    retry_after: str = "1"
    broken: float = 0.0  # HTTP 500
    cut: float = 0.0  # JSON
    reset: float = 0.0  # the connection
    slow: float = 0.0
    slow_seconds: float = 20.0
    quotes: bool = False  # the answers before the verdict, with whatever they say of themselves
    status: int = 200  # of every request
    location: str = ""  # that requests are sent on to
    refused: str = ""  # the text of questions that are answered by refused_status
    refused_status: int = 400
    quoted_key: bool = False  # in what it says of a refusal, and in its answers
    seconds: float = 0.01  # that every answer takes


@dataclass
class JudgeServer:
    truth: Truth
    faults: Faults = Faults()
    seed: int = 0
    begun: list[float] = field(default_factory=list)  # when requests came
    asked: Counter[str] = field(default_factory=Counter)  # requests by question
    paid: Counter[str] = field(default_factory=Counter)  # whole answers by question
    keys: set[str | None] = field(default_factory=set)
    inside: int = 0
    most_inside: int = 0
    port: int = 0
    bodies: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def most_in(self, seconds: float) -> int:
        """Most requests that came within so many seconds."""
        ends = (bisect.bisect_left(self.begun, begun + seconds) for begun in self.begun)
        return max((end - first for first, end in enumerate(ends)), default=0)

    async def reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = question_id(body)
        self.begun.append(time.monotonic())
        self.asked[question] += 1
        self.bodies.append(body)
        self.keys.add(request.headers.get("Authorization"))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            return await self._reply(request, body, question)
        finally:
            self.inside -= 1

    async def _reply(self, request: web.Request, body: Mapping[str, Any], question: str) -> web.StreamResponse:
        from aiohttp import web

        faults, drawn = self.faults, self.chance.random()
        said = f" of {request.headers.get('Authorization')}" if faults.quoted_key else ""
        await asyncio.sleep(faults.seconds)
        if faults.status != 200:
            headers = {"Location": faults.location} if faults.location else {}
            return web.Response(status=faults.status, text=f"no{said}", headers=headers)
        if faults.refused and faults.refused in shown_text(body):
            return web.Response(status=faults.refused_status, text=f"not\nthis one{said}")
        for share, fault in ((faults.too_many, 429), (faults.broken, 500)):
            if 0 <= drawn < share:
                headers = {"Retry-After": faults.retry_after} if fault == 429 else {}
                return web.Response(status=fault, text=f"not now{said}", headers=headers)
            drawn -= share
        if 0 <= drawn < faults.reset:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        drawn -= faults.reset
        content = self.content(body, question, said)
        if 0 <= drawn < faults.cut:
            return web.Response(text=json.dumps(content)[:-20], content_type="application/json")
        drawn -= faults.cut
        if 0 <= drawn < faults.slow:
            await asyncio.sleep(faults.slow_seconds)
        self.paid[question] += 1
        return web.json_response(content)

    def content(self, body: Mapping[str, Any], question: str, said: str = "") -> dict[str, Any]:
        shown = shown_text(body)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", **self._said(body, shown, question, said)}
        written = len(choice["message"]["content"]) // 4 + 1
        usage = {"prompt_tokens": len(shown) // 4, "completion_tokens": written}
        return {"id": question, "model": body["model"], "choices": [choice], "usage": usage}

    def _said(self, body: Mapping[str, Any], shown: str, question: str, said: str) -> dict[str, Any]:
        answers = shown_answers(shown)
        if answers is None:
            return _rated(body)
        number, request, first, second = answers
        biased = int(question[:8], 16) / 16**8 < self.faults.position_bias
        share = 1.0 if biased else self.truth(request, first, second)
        if share is None:
            return {"message": _assistant(UNKNOWN)}
        if body.get("logprobs"):
            return log_probs(share, body["top_logprobs"])
        winner = {1.0: "A", 0.5: "tie", 0.0: "B"}[share]
        quoted = f"A says {first!r}, B says {second!r}. " if self.faults.quotes else ""
        verdict = f"[[{number}{':' if number else ''}{winner}]]"
        return {"message": _assistant(f"{quoted}I have compared them{said}.\n{verdict}")}


def question_id(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def shown_text(body: Mapping[str, Any]) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def shown_answers(shown: str) -> tuple[str, str, str, str] | None:
    """The number in the marks, the request where it stands between some, and both answers; None where none is."""
    pattern = r"<{} ?(?P<number>\d*)>\n(?P<text>.*?)\n</{} ?(?P=number)>"
    names = ("request", "answer A", "answer B")
    request, first, second = (re.search(pattern.format(name, name), shown, re.DOTALL) for name in names)
    if first is None or second is None:
        return None
    return first["number"], request["text"] if request else "", first["text"], second["text"]


def log_probs(share: float, count: int) -> dict[str, Any]:
    """One token, m where the first answer is better and M where the second is, among the likeliest."""
    first = SURE * share + (1 - SURE) * (1 - share)
    likeliest = {"m": math.log(first), "M": math.log(1 - first), "The": -12.0, "Model": -13.5}
    ordered = sorted(likeliest.items(), key=lambda one: -one[1])[:count]
    told = [{"token": token, "logprob": logp} for token, logp in ordered]
    token = {**told[0], "top_logprobs": told}
    return {"message": _assistant(told[0]["token"]), "logprobs": {"content": [token]}}


def _rated(body: Mapping[str, Any]) -> dict[str, Any]:
    """The rating of the answer that is shown alone; with the log-probs of its neighbours where they are asked for."""
    text = truthful_reply(body["messages"]) or UNKNOWN
    logps = truthful_logps(body["messages"]) if body.get("logprobs") else None
    if logps is None:
        return {"message": _assistant(text)}
    told = [{"token": token, "logprob": logp} for token, logp in logps.items()]
    return {
        "message": _assistant(text),
        "logprobs": {"content": [{"token": text, "logprob": 0.0, "top_logprobs": told}]},
    }


def _assistant(text: object) -> dict[str, object]:
    return {"role": "assistant", "content": text}


@contextmanager
def serving(server: JudgeServer) -> Iterator[JudgeServer]:
    """Answers from a thread of its own while the body runs."""
    from aiohttp import web

    loop, ready = asyncio.new_event_loop(), threading.Event()
    refused: list[OSError] = []

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.reply)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", server.port).start()
        server.port = runner.addresses[0][1]
        ready.set()
        return runner

    def run() -> None:
        try:
            runner = loop.run_until_complete(start())
        except OSError as error:
            refused.append(error)
            ready.set()
            return
        loop.run_forever()
        for slow in asyncio.all_tasks(loop):
            slow.cancel()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    if refused:
        raise EndpointError(f"port {server.port} of this machine: {refused[0].strerror}; name another one (--port)")
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def serve_truth(description: str | None) -> None:
    """Serve the playground's true quality until Ctrl-C."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=8009, help="0 takes a free one (default: 8009)")
    shares = {
        "position-bias": "of questions in which the answer shown first wins",
        "too-many": "of requests that are refused with 429 and Retry-After",
        "broken": "of requests that fail with 500",
        "cut": "of answers whose JSON is cut short",
        "slow": "of answers that take 20 seconds",
    }
    for name, text in shares.items():
        parser.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=text)
    chosen = vars(parser.parse_args())
    port = chosen.pop("port")
    with serving(JudgeServer(true_share, Faults(**chosen), port=port)) as server:
        print(f"judging at {server.url}; Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    print(f"\n{sum(server.asked.values())} requests, {sum(server.paid.values())} answers")
