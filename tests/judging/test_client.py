"""A server that is busy, fails or refuses: what is asked again, what is given up, and how fast it is asked."""

from __future__ import annotations

import asyncio
import time
from importlib import metadata

import pytest

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging import client as client_module
from mixdpo_ray.judging import pacing
from mixdpo_ray.judging.client import EndpointClient, back_off
from mixdpo_ray.judging.question import request_body
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from tests.judging.questions import (
    answer_pairs,
    asked,
    both_orders,
    judge_settings,
    question_of,
    questions,
    true_win_rate,
    truth,
    verdict_of,
    win_rate,
)

MIXED = Faults(
    too_many=0.1, retry_after="0.1", broken=0.1, cut=0.1, reset=0.05, slow=0.05, slow_seconds=20, quotes=True
)


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_BACK_OFF", 0.05)


def test_all_verdicts_arrive_from_a_server_that_fails_in_every_way_and_their_win_rate_is_the_truth() -> None:
    pairs = answer_pairs(40)
    with serving(JudgeServer(truth, MIXED)) as server:
        replies = asked(server, both_orders(pairs), at_once=16, timeout_seconds=0.5, tries=30)
    assert [reply.failure for reply in replies] == [""] * 80
    assert sum(server.asked.values()) > 90
    assert server.most_inside <= 16
    assert win_rate(replies) == pytest.approx(true_win_rate(pairs))


def test_as_many_questions_are_open_as_are_allowed() -> None:
    with serving(JudgeServer(truth, Faults(seconds=0.05))) as server:
        replies = asked(server, questions(24), at_once=6)
    assert [verdict_of(reply, number) for number, reply in enumerate(replies)] == [1.0] * 24
    assert server.most_inside == 6


def test_a_judge_that_prefers_a_position_is_even_over_both_orders() -> None:
    pairs = [(f"{n % 9 + 1} a", f"{n % 9 + 1} b") for n in range(200)]
    with serving(JudgeServer(truth, Faults(position_bias=0.2, seconds=0))) as server:
        replies = asked(server, both_orders(pairs), at_once=32)
    first = [reply.text.endswith("A]]") for reply in replies]
    assert sum(first) / len(first) == pytest.approx(0.2, abs=0.06)
    assert win_rate(replies) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("limit", "at_once"), [(20, 64), (60, 4)])
def test_no_minute_at_the_server_has_more_requests_than_are_allowed(
    monkeypatch: pytest.MonkeyPatch, limit: int, at_once: int
) -> None:
    """The minute is one of a second; repeated requests count."""
    monkeypatch.setattr(pacing, "MINUTE", 1.0)
    with serving(JudgeServer(truth, Faults(too_many=0.2, retry_after="0.05"))) as server:
        replies = asked(server, questions(limit + 15), requests_per_minute=limit, at_once=at_once, tries=20)
    assert not any(reply.failure for reply in replies)
    assert limit * 0.7 < server.most_in(1.0) <= limit


def test_no_minute_has_more_tokens_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was expected and did not come is given back: answers are shorter than they might be."""
    monkeypatch.setattr(pacing, "MINUTE", 1.0)
    with serving(JudgeServer(truth)) as server:
        asked(server, questions(1))
        began = time.monotonic()
        replies = asked(server, questions(30), tokens_per_minute=1200, at_once=2)
        seconds = time.monotonic() - began
    tokens = sum((reply.input_tokens or 0) + (reply.output_tokens or 0) for reply in replies)
    assert 0.8 * tokens / 1200 < seconds < 3 * tokens / 1200 + 0.5


def test_the_time_that_a_server_asks_for_is_waited_for_and_then_fewer_ask() -> None:
    server = JudgeServer(truth, Faults(too_many=1.0, retry_after="1"))

    async def ask() -> tuple[float, float]:
        settings = judge_settings(server, at_once=4)
        async with EndpointClient(settings) as client:
            tasks = [asyncio.create_task(client.ask(request_body(one, settings))) for one in questions(8)]
            while client._gate.width == 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            width = client._gate.width
            server.faults = Faults(too_many=0)
            server.begun.clear()
            asked_at = time.monotonic()
            await asyncio.gather(*tasks)
            return min(server.begun) - asked_at, width

    with serving(server):
        waited, width = asyncio.run(ask())
    assert waited > 0.7
    assert width == 2  # once for all that were refused together


def test_pauses_are_random_below_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_BACK_OFF", 60.0)
    pauses = [[back_off(failures, None) for _ in range(200)] for failures in (0, 3, 9)]
    for drawn, bound in zip(pauses, (1, 8, 60), strict=True):
        assert min(drawn) < bound / 4 < 3 * bound / 4 < max(drawn) <= bound
    assert 5 <= back_off(0, 5.0) <= 6


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_server_holds_against_one_question_concerns_that_one(status: int) -> None:
    with serving(JudgeServer(truth, Faults(status=status))) as server:
        replies = asked(server, questions(5))
    assert [reply.failure for reply in replies] == [f"HTTP {status}: no"] * 5
    assert sum(server.asked.values()) == 5


def test_a_question_that_is_refused_alone_leaves_the_others_their_answers() -> None:
    with serving(JudgeServer(truth, Faults(refused="<answer A 1001>"))) as server:
        replies = asked(server, questions(3))
    assert [reply.failure for reply in replies] == ["", "HTTP 400: not this one", ""]
    assert [bool(reply.text) for reply in replies] == [True, False, True]
    assert sum(server.asked.values()) == 3


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "name a key"), (403, "name a key"), (404, "name of the model"), (301, "the address")]
)
def test_what_a_server_holds_against_all_stops_the_job_in_one_line(status: int, remedy: str) -> None:
    with serving(JudgeServer(truth, Faults(status=status))) as server, pytest.raises(EndpointError) as error:
        asked(server, questions(50), at_once=4)
    assert str(error.value).startswith(f"{server.url}: HTTP {status}: no; ")
    assert remedy in str(error.value)
    assert "\n" not in str(error.value)
    assert sum(server.asked.values()) <= 8


def test_a_server_that_is_out_for_today_is_not_waited_for() -> None:
    server = JudgeServer(truth, Faults(too_many=1.0, retry_after="7200"))
    with serving(server), pytest.raises(EndpointError, match="repeat in 2 h: what was answered is kept"):
        asked(server, questions(3))


def test_a_server_that_never_answers_or_is_not_there_stops_the_job_after_a_few_questions() -> None:
    with serving(JudgeServer(truth, Faults(broken=1.0))) as server, pytest.raises(EndpointError) as error:
        asked(server, questions(40), tries=2, at_once=2)
    assert "has answered none of 3 questions in a row, each asked 2 times: HTTP 500: not now" in str(error.value)
    with pytest.raises(EndpointError, match="in a row, each asked 2 times: Cannot connect"):
        asked(server, questions(5), tries=2)


def test_log_probs_of_two_identifiers_are_read_at_the_first_token() -> None:
    with serving(JudgeServer(truth)) as server:
        better, worse, missing = asked(
            server,
            [
                question_of("8 a", "3 b", 0, max_tokens=1, top_logprobs=5),
                question_of("3 a", "8 b", 0, max_tokens=1, top_logprobs=5),
                question_of("3 a", "8 b", 0, max_tokens=1, top_logprobs=1),
            ],
        )
    assert better.text == "m"
    assert better.first_logps == pytest.approx({"m": -0.10536, "M": -2.302585, "The": -12, "Model": -13.5}, abs=1e-5)
    assert worse.first_logps is not None
    assert worse.first_logps["M"] == pytest.approx(-0.10536, abs=1e-5)
    assert missing.first_logps == pytest.approx({"M": -0.10536}, abs=1e-5)


def test_the_http_library_is_one_that_ray_brings() -> None:
    """It is imported here, and comes with the extra of Ray that this package depends on."""
    ours = [one for one in metadata.requires("mixdpo_ray") or [] if one.startswith("ray[")]
    assert "default" in ours[0].partition("[")[2].partition("]")[0].split(",")
    rays = [one for one in metadata.requires("ray") or [] if 'extra == "default"' in one]
    assert any(one.startswith("aiohttp>") for one in rays)
