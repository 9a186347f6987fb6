"""A server on loopback that speaks OpenAI's protocol for chats, with faults that a test asks for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Fault = Callable[[int, dict[str, Any]], web.Response | float | None]  # a reply, or seconds before the right one


class Loopback:
    """Answers each question with its last turn in capitals."""

    def __init__(self, fault: Fault = lambda number, body: None):
        self.fault = fault
        self.questions: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.answered = self.inside = self.most_inside = self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def reply(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.questions.append(body)
        self.keys.add(request.headers.get("Authorization"))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            fault = self.fault(len(self.questions), body)
            if isinstance(fault, web.Response):
                return fault
            await asyncio.sleep(fault or 0.01)
        finally:
            self.inside -= 1
        self.answered += 1
        text = body["messages"][-1]["content"].upper() + f" {body['seed']}"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": 3}})


@contextmanager
def serving(server: Loopback) -> Iterator[Loopback]:
    """In a thread of its own while the body runs."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.reply)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        ready.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def refusal(status: int, text: str = "no", **headers: str) -> web.Response:
    return web.Response(status=status, text=text, headers=headers)


def cut_json() -> web.Response:
    return web.Response(text=json.dumps({"choices": [{"message": {"content": "whole"}}]})[:20])
