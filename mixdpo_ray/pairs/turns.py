"""Two conversations into a prompt and two answers, which begin at the assistant's turn where they part.

Most answers are one turn. Others go on with turns of the user or of tools, and end with the assistant all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.pairs.pair import PLAIN_KEYS, Candidate, Message
from mixdpo_ray.pairs.template_inputs import TemplateInputs, given

FOLLOWS = {  # who may speak after whom
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
Conversation = tuple[Message, ...]


@dataclass(frozen=True)
class Turns:
    prompt: Conversation
    chosen: Conversation
    rejected: Conversation

    @property
    def plain(self) -> bool:
        """Whether both answers are one text."""
        return all(len(answer) == 1 and len(answer[0]) == PLAIN_KEYS for answer in (self.chosen, self.rejected))


def check_turns(candidate: Candidate, template: TemplateInputs, max_bytes: int) -> Turns | str:
    """The turns, or a reason of checking.REASONS."""
    chosen, rejected = conversation(candidate.chosen), conversation(candidate.rejected)
    if chosen is None or rejected is None:
        return "bad_turns"
    start = _where_they_part(chosen, rejected)
    if start is None:
        return "answers_differ_before_last_turn"
    turns = Turns(chosen[:start], chosen[start:], rejected[start:])
    written = [*turns.prompt, *turns.chosen, *turns.rejected]
    try:
        size = sum(len(text.encode()) for message in written for text in message_texts(message))
    except UnicodeEncodeError:
        return "lone_surrogate"
    if size + len(template.tools.encode()) > max_bytes:
        return "oversized_row"
    if not all(map(says_something, (*turns.chosen, *turns.rejected))):
        return "empty_answer"
    if not all(map(says_something, turns.prompt)):
        return "empty_prompt"
    return "identical_answers" if _alike(turns.chosen, turns.rejected) else turns


def conversation(turns: Any) -> Conversation | None:
    """None unless the turns are texts of [system], user, assistant, ..., user, assistant, with tools called between."""
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Mapping) for turn in turns):
        return None
    messages = [message_of(turn) for turn in turns]
    known = tuple(message for message in messages if message is not None)
    return known if len(known) == len(messages) and in_turn(known) and known[-1]["role"] == "assistant" else None


def in_turn(messages: Sequence[Message]) -> bool:
    """Whether each may speak after the one before."""
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    before, calls = "", None
    for message in spoken:
        role = message["role"]
        called = role != "tool" or before == "tool" or bool(calls)
        if not isinstance(role, str) or role not in FOLLOWS[before] or not called:
            return False
        before, calls = role, message.get("tool_calls")
    return bool(spoken)


def message_of(turn: Mapping[str, Any]) -> Message | None:
    """The turn with what templates read of it; none where it has no text, and calls no tool."""
    role, content, calls = turn.get("role"), turn.get("content"), None
    if role == "assistant" and turn.get("tool_calls"):
        calls = _calls(turn["tool_calls"])
        content = "" if content is None else content
        if not calls:
            return None
    if not isinstance(content, str):
        return None
    message = Message(role=role, content=content)  # type: ignore[typeddict-item]
    if calls:
        message["tool_calls"] = calls
    if role == "tool":
        if isinstance(name := turn.get("name"), str):
            message["name"] = name
        if isinstance(number := turn.get("tool_call_id"), str):
            message["tool_call_id"] = number
    return message


def message_texts(message: Message) -> list[str]:
    """All that a turn says, its calls as JSON."""
    calls = message.get("tool_calls")
    return [message["content"], *([json.dumps(calls, ensure_ascii=False)] if calls else [])]


def leaves_calls_out(text: str, messages: Sequence[Message]) -> bool:
    """Whether a rendering of these turns does not name a function that one of them calls."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    return any(call.get("function", call)["name"] not in text for call in calls)


def _calls(calls: Any) -> list[Any] | None:
    """Calls of functions with names, their arguments as a mapping even where they came as JSON; or none of them."""
    try:
        found = given(calls)
        json.dumps(found)
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(call, Mapping) for call in found):
        return None
    return found if all(map(_called, found)) else None


def _called(call: dict[str, Any]) -> bool:
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    if isinstance(arguments := function.get("arguments"), str):
        try:
            read = json.loads(arguments)
        except ValueError:
            return True  # templates that expect a text take it as it is
        if isinstance(read, dict):
            function["arguments"] = read
    return True


def _where_they_part(chosen: Conversation, rejected: Conversation) -> int | None:
    """The last turn before which both are alike, and where both are the assistant's."""
    alike = 0
    while alike < min(len(chosen), len(rejected)) - 1 and chosen[alike] == rejected[alike]:
        alike += 1
    starts = [turn for turn in range(alike + 1) if chosen[turn]["role"] == rejected[turn]["role"] == "assistant"]
    return starts[-1] if starts else None


def says_something(message: Message) -> bool:
    """Whether a turn has text or calls a tool; a tool may have nothing to say."""
    return message["role"] == "tool" or bool(message.get("tool_calls")) or bool(message["content"].strip())


def _alike(chosen: Conversation, rejected: Conversation) -> bool:
    """Whether both say the same, whatever blanks are around it."""
    return len(chosen) == len(rejected) and all(
        one["content"].strip() == other["content"].strip() and {**one, "content": ""} == {**other, "content": ""}
        for one, other in zip(chosen, rejected, strict=True)
    )
