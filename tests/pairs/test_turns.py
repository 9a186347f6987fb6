"""Conversations into a prompt and answers: where they part, who may speak, and what names a pair."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mixdpo_ray.pairs.checking import check_pair
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.pairing import PairSettings
from tests.pairs.samples import BAD, GOOD, QUESTION, SAMPLES, conversation, data

PLAIN = SAMPLES["plain"].rows[0]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}


def made(row: dict[str, Any], **settings: Any) -> Pair | str:
    (found,) = FORMATS["plain"].pairs([row], PairSettings())
    assert isinstance(found, Candidate)
    return check_pair(found, data(**settings))


def kept(row: dict[str, Any], **settings: Any) -> Pair:
    pair = made(row, **settings)
    assert isinstance(pair, Pair), pair
    return pair


def turn(role: str, content: str | None, **further: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **further}


def test_answers_of_several_turns_begin_where_they_part() -> None:
    good, bad = conversation("Hello", "Hi!", QUESTION, GOOD), conversation("Hello", "What?", QUESTION, BAD)
    for row in ({"chosen": good, "rejected": bad}, {"prompt": "Hello", "chosen": good[1:], "rejected": bad[1:]}):
        pair = kept({**row, "margin": 1.0})
        assert [one["content"] for one in pair.prompt] == ["Hello"]
        assert pair.answers is not None
        assert [[one["content"] for one in answer] for answer in pair.answers] == [
            ["Hi!", QUESTION, GOOD],
            ["What?", QUESTION, BAD],
        ]


def test_turns_that_both_share_are_the_prompt_as_ever() -> None:
    one = conversation("Hello", "Hi!", QUESTION)
    pair = kept({"chosen": [*one, turn("assistant", GOOD)], "rejected": [*one, turn("assistant", BAD)], "margin": 1.0})
    assert (len(pair.prompt), pair.chosen, pair.rejected, pair.answers) == (3, GOOD, BAD, None)


def test_questions_that_differ_put_the_answer_before_them_into_the_answers() -> None:
    good, bad = conversation("Hello", "Hi!", QUESTION, GOOD), conversation("Hello", "Hi!", "And cars?", BAD)
    pair = kept({"chosen": good, "rejected": bad, "margin": 1.0})
    assert pair.answers is not None
    assert (len(pair.prompt), pair.answers[0][0]) == (1, pair.answers[1][0])


def test_tools_are_called_and_answer_between_turns() -> None:
    good = [turn("assistant", None, tool_calls=[CALL]), turn("tool", "rain", name="weather"), turn("assistant", "Rain")]
    pair = kept({"prompt": "Ulm?", "chosen": good, "rejected": "No idea.", "margin": 1.0, "tools": TOOLS})
    assert pair.answers is not None
    call, reply, _ = pair.answers[0]
    assert (call["content"], call["tool_calls"][0]["function"]["arguments"]) == ("", {"town": "Ulm"})
    assert reply == {"role": "tool", "content": "rain", "name": "weather"}


@pytest.mark.parametrize(
    "turns",
    [
        [turn("user", "Ulm?"), turn("tool", "rain"), turn("assistant", "Rain")],  # nobody called it
        [turn("user", "Ulm?"), turn("assistant", "", tool_calls=[CALL]), turn("tool", "rain")],  # ends with a tool
        [turn("user", "Ulm?"), turn("assistant", None), turn("user", "So?"), turn("assistant", "Rain")],
        [turn("user", "Ulm?"), turn("assistant", None, tool_calls=[{"id": 1}])],
        [turn("user", "Ulm?"), turn("assistant", None, tool_calls="no JSON")],
    ],
)
def test_who_speaks_out_of_turn_is_refused(turns: list[dict[str, Any]]) -> None:
    assert made({"chosen": turns, "rejected": conversation("Ulm?", "Sun"), "margin": 1.0}) == "bad_turns"


def test_a_pair_is_named_by_its_tools_only_where_it_has_some() -> None:
    plain = kept(PLAIN)
    assert plain.pair_id == "aac4768e825139e8daa3a07c73dcfe5b"
    nothing = kept({**PLAIN, "tools": [], "chat_template_kwargs": None})
    assert nothing.pair_id == plain.pair_id
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    others: list[dict[str, Any]] = [{"tools": TOOLS}, thinking, {"tools": [{"name": "clock"}]}]
    assert len({kept({**PLAIN, **one}).pair_id for one in others} | {plain.pair_id}) == 4
    assert {kept({**PLAIN, **one}).prompt_id for one in others} == {plain.prompt_id}


def test_tools_may_be_json_and_lose_the_nulls_that_parquet_fills_in() -> None:
    filled = [{"type": "function", "function": {"name": "weather", "parameters": None, "strict": None}}]
    bare = [{"type": "function", "function": {"name": "weather"}}]
    for tools in (filled, bare, json.dumps(bare)):
        assert kept({**PLAIN, "tools": tools}).template.arguments == {"tools": bare}
    settings = kept({**PLAIN, "chat_template_kwargs": '{"enable_thinking": false}'}).template
    assert settings.arguments == {"enable_thinking": False}


def test_what_belongs_to_the_job_is_no_setting_of_a_row() -> None:
    assert made({**PLAIN, "chat_template_kwargs": {"tokenize": True}}) == "malformed_template_kwargs"
    assert made({**PLAIN, "tools": '[{"name": "\\ud83d"}]'}) == "lone_surrogate"


def test_answers_that_change_places_take_their_turns_along() -> None:
    good, bad = conversation("Hello", "Hi!", QUESTION, GOOD), conversation("Hello", "What?", QUESTION, BAD)
    pair = kept({"chosen": good, "rejected": bad, "margin": -1.0}, negative_margin="swap")
    assert pair.answers is not None
    assert (pair.chosen, pair.answers[0][0]["content"]) == (BAD, "What?")
