"""Answers on disk: what is found again, what is asked again, and what a kill or damage leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import EndpointError, StorageError
from mixdpo_ray.judging.asking import Asking, AskingProgress
from mixdpo_ray.judging.budget import Cost
from mixdpo_ray.judging.estimate import estimate
from mixdpo_ray.judging.question import ChatQuestion, answer_address, request_body
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.judging.reply_store import ReplyStore, reply_folder
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from tests.judging.questions import (
    answer_pairs,
    both_orders,
    judge_settings,
    question_of,
    questions,
    true_win_rate,
    truth,
    win_rate,
)


def addresses(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def judged(
    server: JudgeServer, folder: str, asked: Sequence[ChatQuestion], **settings: Any
) -> tuple[list[ChatReply], AskingProgress]:
    """One job: a store and a client of its own."""

    async def ask() -> tuple[list[ChatReply], AskingProgress]:
        async with Asking(judge_settings(server, **settings), ReplyStore(folder)) as asking:
            return await asking.ask(asked), asking.progress

    return asyncio.run(ask())


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_was_stored_is_found_whatever_signs_are_in_it(tmp_path: Path) -> None:
    replies = [
        ChatReply('a "quoted"\nline\r\u2028\ud800', "stop", (("m", {"m": -0.1, "M": -2.5}),), "judge-1", 0, 7),
        ChatReply("", "length"),
        ChatReply.failed("HTTP 400: no"),
    ]
    store = ReplyStore(str(tmp_path))
    store.append(zip(addresses(3), replies, strict=True))
    for read in (store, ReplyStore(str(tmp_path))):
        assert [read.get(address) for address in addresses(3)] == replies
        assert [address in read for address in addresses(4)] == [True, True, False, False]
        assert read.get("f" * 64) is None
    assert replies[0].first_logps == {"m": -0.1, "M": -2.5}
    assert replies[1].cut_off


def test_an_answer_stays_and_a_failure_gives_way_to_it(tmp_path: Path) -> None:
    (address,) = addresses(1)
    for reply in (ChatReply.failed("busy"), ChatReply("first"), ChatReply("second"), ChatReply.failed("busy")):
        store = ReplyStore(str(tmp_path))
        store.append([(address, reply)])
    assert store.get(address) == ChatReply("first")


def test_a_store_in_an_object_store_is_the_same(bucket: str) -> None:
    folder = f"{bucket}/judged"
    store = ReplyStore(folder)
    for address in addresses(3):
        store.append([(address, ChatReply(address))])
    other = ReplyStore(folder)
    store.append([("a" * 64, ChatReply("later"))])
    other.refresh()
    assert [(other.get(address) or ChatReply()).text for address in addresses(3)] == addresses(3)
    assert "a" * 64 in other


def test_half_a_line_is_left_out_and_another_process_adds_what_it_lacks(tmp_path: Path) -> None:
    store = ReplyStore(str(tmp_path))
    store.append((address, ChatReply("whole")) for address in addresses(3))
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for cut in (1, 40, len(whole.splitlines()[-1])):
        file.write_bytes(whole[:-cut])
        other = ReplyStore(str(tmp_path))
        assert [address in other for address in addresses(3)] == [True, True, False]
    other.append([(addresses(3)[2], ChatReply("again"))])
    file.write_bytes(whole)  # it was only being written
    other.refresh()
    assert [(other.get(address) or ChatReply()).text for address in addresses(3)] == ["whole", "whole", "again"]


def test_a_write_that_failed_half_way_has_nothing_glued_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ReplyStore(str(tmp_path))
    one, other = addresses(2)

    def full(_: int) -> None:
        (path,) = tmp_path.glob("*.jsonl")
        path.write_bytes(path.read_bytes()[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full"):
            store.append([(one, ChatReply("A"))])
    store.append([(one, ChatReply("A")), (other, ChatReply("B"))])
    assert len(ReplyStore(str(tmp_path))) == 2


def test_damage_is_named_by_its_line(tmp_path: Path) -> None:
    store = ReplyStore(str(tmp_path))
    store.append((address, ChatReply("[[A]]")) for address in addresses(3))
    file = only_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"[[A]]", b"[[B]]", 2).replace(b"[[B]]", b"[[A]]", 1))
    with pytest.raises(StorageError, match=r"jsonl line 2 has other content than was written: restore"):
        ReplyStore(str(tmp_path))


def test_a_question_has_the_address_of_all_that_is_sent() -> None:
    """Another judge, setting, protocol, prompt, answer or order never finds the first one's verdict."""
    settings = judge_settings(JudgeServer(truth))
    asked = question_of("8 a", "3 b", 0)
    others = [
        (question_of("3 b", "8 a", 0), settings),
        (question_of("8 a ", "3 b", 0), settings),
        (question_of("8 a", "3 b", 1), settings),
        (question_of("8 a", "3 b", 0, max_tokens=65), settings),
        (question_of("8 a", "3 b", 0, temperature=1.0), settings),
        (question_of("8 a", "3 b", 0, top_logprobs=5), settings),
        (question_of("8 a", "3 b", 0, parameters={"seed": 1}), settings),
        (question_of("8 a", "3 b", 0, draw=1), settings),
        (ChatQuestion(({"role": "system", "content": "Judge."}, *asked.messages[1:]), 64), settings),
        (asked, settings.model_copy(update={"model": "other"})),
        (asked, settings.model_copy(update={"parameters": {"reasoning_effort": "low"}})),
    ]
    hashes = [answer_address(request_body(one, of), one.draw) for one, of in [(asked, settings), *others]]
    assert len(set(hashes)) == len(others) + 1
    moved = settings.model_copy(update={"url": "http://elsewhere/v1", "at_once": 3, "key_variable": "KEY"})
    assert answer_address(request_body(asked, moved)) == hashes[0]
    assert reply_folder("/out", "a/judge") != reply_folder("/out", "a-judge")


def test_a_verdict_is_paid_once_across_jobs_and_failures_are_asked_again(tmp_path: Path) -> None:
    folder, pairs = str(tmp_path), answer_pairs(12)
    asked = both_orders(pairs)
    with serving(JudgeServer(truth, Faults(status=400))) as server:
        failed, progress = judged(server, folder, asked[:4])
        assert {reply.failure for reply in failed} == {"HTTP 400: no"}
        assert (progress.failed, progress.spent.tokens) == (4, 0)
        server.faults = Faults()
        judged(server, folder, asked[:10])
        replies, progress = judged(server, folder, [*asked, *asked])  # two arms with the same answers
        again, free = judged(server, folder, asked)
        judged(server, folder, asked[:3], model="other")
    assert again == replies[:24] == replies[24:]
    assert win_rate(again) == pytest.approx(true_win_rate(pairs))
    assert (progress.answered, progress.cached) == (14, 10)
    assert (free.answered, free.cached, free.spent) == (0, 24, Cost())
    assert sorted(server.paid.values()) == [1] * 27


def test_what_came_before_a_budget_was_spent_is_kept(tmp_path: Path) -> None:
    folder, asked = str(tmp_path), questions(30)
    with serving(JudgeServer(truth)) as server:
        with pytest.raises(EndpointError, match=r"budget.calls \(10\)"):
            judged(server, folder, asked, budget={"calls": 10})
        assert len(ReplyStore(folder)) == sum(server.asked.values()) == 10
        _, progress = judged(server, folder, asked, budget={"calls": 20})
    assert (progress.cached, progress.answered) == (10, 20)


def test_nothing_more_is_paid_where_answers_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("a file")
    with serving(JudgeServer(truth, Faults(seconds=0.05))) as server:

        async def ask() -> None:
            async with Asking(judge_settings(server, at_once=4), ReplyStore(f"{tmp_path}/judged")) as asking:
                asking.store.folder = f"{tmp_path}/full/judged"
                await asking.ask(questions(40))

        with pytest.raises((StorageError, EndpointError), match=r"full/judged.*Not a directory") as error:
            asyncio.run(ask())
    assert "\n" not in str(error.value)
    assert sum(server.asked.values()) <= 8


def test_a_dry_run_tells_calls_tokens_and_price_before_anything_is_asked(tmp_path: Path) -> None:
    folder, asked = str(tmp_path), questions(30)
    prices = {"input": 2, "output": 10}
    with serving(JudgeServer(truth)) as server:
        settings = judge_settings(server, prices=prices, requests_per_minute=10, budget={"calls": 12})
        judged(server, folder, asked[:10])
        made = estimate([*asked, *asked], settings, ReplyStore(folder))
        assert sum(server.asked.values()) == 10
        _, progress = judged(server, folder, asked, prices=prices)
    assert (made.questions, made.cached, made.cost.calls) == (30, 10, 20)
    assert made.cost.input_tokens == pytest.approx(progress.spent.input_tokens, rel=0.02)
    assert progress.spent.price(settings.prices) < made.cost.price(settings.prices)
    assert made.describe().splitlines() == [
        "30 questions to judge, of which 10 are answered and cost nothing",
        f"about 20 calls, {made.cost.input_tokens:,} tokens read and 1,280 written, price "
        f"{made.cost.price(settings.prices):.4g}: with answers as long as they may be, and no call repeated",
        "about 2 min, by the limits per minute",
        "budget.calls (12) may not be enough: it ends the job, and what was answered is kept",
    ]


PROGRAM = """
import asyncio, sys
from mixdpo_ray.judging.asking import Asking
from mixdpo_ray.judging.reply_store import ReplyStore
from mixdpo_ray.recipe.judge import PaidEndpointSettings
from tests.judging.questions import answer_pairs, both_orders
async def ask():
    settings = PaidEndpointSettings(url=sys.argv[1], model="judge", at_once=8)
    async with Asking(settings, ReplyStore(sys.argv[2])) as asking:
        await asking.ask(both_orders(answer_pairs(40)))
asyncio.run(ask())
"""


def test_after_a_kill_no_verdict_is_asked_twice_beyond_those_under_way(tmp_path: Path) -> None:
    folder, pairs = str(tmp_path), answer_pairs(40)
    with serving(JudgeServer(truth, Faults(seconds=0.05))) as server:
        job = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url, folder])
        deadline = time.monotonic() + 60
        while len(server.paid) < 30:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
        job.wait()
        stored = len(ReplyStore(folder))
        asked_before = set(server.asked)
        replies, progress = judged(server, folder, both_orders(pairs), at_once=8)
    assert stored == progress.cached
    assert len(asked_before) - stored <= 8
    twice = [question for question, count in server.asked.items() if count > 1]
    assert len(twice) <= 8
    assert len(server.asked) == 80
    assert win_rate(replies) == pytest.approx(true_win_rate(pairs))
