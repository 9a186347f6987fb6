"""The playground's judge over HTTP says what the rule says, to whoever asks it as an API is asked."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.judging.asking import Asking
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.judging.reply_store import ReplyStore
from mixdpo_ray.recipe.judge import PaidEndpointSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address() -> Iterator[str]:
    command = [sys.executable, "jobs/playground_judge.py", "--port", "0", "--too-many", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[2].rstrip(";")
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
        assert "requests" in server.stdout.read()


def test_the_served_truth_judges_what_an_endpoint_is_asked(address: str, tmp_path: Path) -> None:
    own = Own(prompts="unread")
    prompts = [
        BenchmarkPrompt("1", ("sort b a",), reference=("b a",)),
        BenchmarkPrompt("2", ("Why?",), reference=("a",)),
    ]
    questions = [question for prompt in prompts for question in own.questions(prompt, ("a b",), own.read_template())]

    async def ask() -> list[ChatReply]:
        settings = PaidEndpointSettings(url=address, model="truth")
        async with Asking(settings, ReplyStore(str(tmp_path))) as asking:
            return await asking.ask([ChatQuestion(question.messages, max_tokens=64) for question in questions])

    replies = asyncio.run(ask())
    read = [own.read(*one) for one in zip(questions, (JudgeReply(reply.text) for reply in replies), strict=True)]
    assert [verdict.value for verdict in read] == [0.0, 1.0, None, None]
    assert [reply.text for reply in replies[2:]] == ["I cannot say."] * 2


def test_a_port_that_is_taken_is_said_in_one_line(address: str) -> None:
    port = address.split(":")[2].split("/")[0]
    command = [sys.executable, "jobs/playground_judge.py", "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert second.returncode == 1
    assert f"port {port} of this machine" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
