"""A server that is busy, fails or refuses: what is asked again, what is given up, and what nobody may read."""

from __future__ import annotations

import asyncio
import pickle
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import ResourceError
from mixdpo_ray.recipe.sample import HttpSettings
from mixdpo_ray.sampling import chat_client
from mixdpo_ray.sampling.chat_client import ChatClient, ServerAnswer, pause
from tests.sampling.loopback import Fault, Loopback, cut_json, refusal, serving

KEY = "sk-planted-0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "LONGEST_PAUSE", 0.05)


def asked(server: Loopback, questions: int, **settings: Any) -> list[ServerAnswer]:
    """All at once, by one client."""

    async def ask() -> list[ServerAnswer]:
        client = ChatClient(HttpSettings.model_validate({"url": server.url, **settings}))
        try:
            return await asyncio.gather(*(client.ask(body(number)) for number in range(questions)))
        finally:
            await client.close()

    return asyncio.run(ask())


def body(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"question {number}"}], "seed": number}


def texts(answers: list[ServerAnswer]) -> list[str]:
    return [answer.content["choices"][0]["message"]["content"] for answer in answers if answer.content]


def test_as_many_questions_are_open_as_are_allowed() -> None:
    with serving(Loopback(lambda number, body: 0.05)) as server:
        answers = asked(server, 24, at_once=6)
    assert texts(answers) == [f"QUESTION {number} {number}" for number in range(24)]
    assert server.most_inside == 6


def every_third_fails(number: int, body: dict[str, Any]) -> Any:
    faults = {0: refusal(500), 3: cut_json(), 6: refusal(429), 9: refusal(503), 12: 0.8}
    return faults.get(number % 15)


def test_all_answers_arrive_from_a_server_that_fails_every_third_time() -> None:
    with serving(Loopback(every_third_fails)) as server:
        answers = asked(server, 30, at_once=4, timeout_seconds=0.4, tries=20)
    assert texts(answers) == [f"QUESTION {number} {number}" for number in range(30)]
    assert len(server.questions) > 40


def test_the_time_that_a_server_asks_for_is_waited_for() -> None:
    """Nothing arrives before it is over, and then fewer at a time."""
    began = time.monotonic()
    arrived: list[float] = []

    def busy(number: int, body: dict[str, Any]) -> Any:
        arrived.append(time.monotonic() - began)
        return refusal(429, **{"Retry-After": "1"}) if number <= 4 else None

    with serving(Loopback(busy)) as server:
        assert len(texts(asked(server, 4, at_once=4))) == 4
    assert min(arrived[4:]) - max(arrived[:4]) > 0.9
    assert server.most_inside <= 2


def test_pauses_are_random_below_a_bound_that_doubles() -> None:
    chat_client.LONGEST_PAUSE = 60.0
    pauses = [[pause(attempt, None) for _ in range(200)] for attempt in (0, 3, 9)]
    assert [max(some) <= bound for some, bound in zip(pauses, (1, 8, 60), strict=True)] == [True] * 3
    assert [min(some) < bound / 4 < max(some) for some, bound in zip(pauses, (1, 8, 60), strict=True)] == [True] * 3
    assert 5 <= pause(0, 5.0) <= 6


def test_what_concerns_one_question_is_told_of_that_one() -> None:
    def strict(number: int, body: dict[str, Any]) -> Any:
        return refusal(400, "the context\nis full") if body["seed"] == 1 else None

    with serving(Loopback(strict)) as server:
        answers = asked(server, 3)
    assert answers[1] == ServerAnswer(None, "HTTP 400: the context is full")
    assert len(texts(answers)) == 2
    assert len(server.questions) == 3


def failing_with(fault: Fault, **settings: Any) -> str:
    with serving(Loopback(fault)) as server, pytest.raises(ResourceError) as error:
        asked(server, 8, at_once=2, **settings)
    assert "\n" not in str(error.value)
    return str(error.value).replace(server.url, "URL")


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "name a key"), (403, "name a key"), (404, "the name of the model"), (301, "address")]
)
def test_what_concerns_all_questions_stops_the_job_in_one_line(status: int, remedy: str) -> None:
    said = failing_with(lambda number, body: refusal(status, "wrong"))
    assert said.startswith(f"URL: HTTP {status}: wrong; ")
    assert remedy in said


def test_a_server_that_never_answers_stops_the_job_after_a_few_questions() -> None:
    said = failing_with(lambda number, body: refusal(500, "broken"), tries=2)
    assert said.startswith("URL has answered none of 3 questions in a row, each asked 2 times: HTTP 500: broken")


def test_the_key_is_sent_and_stands_in_no_answer_error_or_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the server quotes it."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("PLANTED_KEY", KEY)
    for named in ({"key_file": str(tmp_path / "key")}, {"key_variable": "PLANTED_KEY"}):
        server = Loopback(lambda number, body: refusal(400, f"your key Bearer {KEY} is {KEY}"))
        with serving(server):
            (answer,) = asked(server, 1, **named)
        assert server.keys == {f"Bearer {KEY}"}
        assert KEY not in repr(answer)
        server.fault = lambda number, body: refusal(401, f"Incorrect API key {KEY}")
        with serving(server), pytest.raises(ResourceError) as error:
            asked(server, 1, **named)
        shown = "".join(traceback.format_exception(error.value))
        assert KEY not in shown + repr(error.value)
        assert KEY.encode() not in pickle.dumps(error.value)
        assert KEY not in repr(HttpSettings.model_validate(named))


def test_a_key_that_is_not_there_is_named_by_its_variable_or_file() -> None:
    with pytest.raises(ResourceError, match=r"key_variable NO_SUCH_KEY is not set on .*: set it before Ray starts"):
        ChatClient(HttpSettings(key_variable="NO_SUCH_KEY"))
    with pytest.raises(ResourceError, match=r"key_file /nowhere/key: No such file or directory on "):
        ChatClient(HttpSettings(key_file="/nowhere/key"))
