"""A preference pair, before and after it was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict


class Message(TypedDict):
    role: str
    content: str


@dataclass(frozen=True)
class Candidate:
    """What a format finds in a source: two whole conversations and their ratings, nothing of it checked yet."""

    chosen: Any
    rejected: Any
    source: str
    score_chosen: Any = None
    score_rejected: Any = None
    margin: Any = None  # for sources that rate the difference; where given it is what counts
    scale: tuple[float, float] | None = None  # the lowest and the highest rating; for a margin alone, (0, largest)
    ratings: tuple[Any, Any] = (None, None)  # of several raters by name, of the chosen and of the rejected answer


Row = Mapping[str, Any]
Found = list[Candidate | str]  # what a format makes of a row; a string is a key of checking.REASONS


@dataclass(frozen=True)
class Pair:
    """Checked: the turns are in order, the answers differ, the margin is finite and not negative."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float
    source: str
    score_chosen: float = float("nan")  # NaN where the source rates only the difference
    score_rejected: float = float("nan")
    notes: tuple[str, ...] = ()  # what a policy changed
    group: str | None = None  # prompt_id of the pair that this one was made of
    rater_margins: tuple[float, ...] = ()  # of each of several raters, in the order of their names; NaN: it has none

    @cached_property
    def pair_id(self) -> str:
        return content_hash([*_turns(self.prompt), self.chosen, self.rejected])

    @cached_property
    def prompt_id(self) -> str:
        """What is held out together."""
        return self.group or prompt_hash(self.prompt)


def prompt_hash(messages: Sequence[Message]) -> str:
    """The prompt_id of these turns."""
    return content_hash(_turns(messages))


def content_hash(texts: Sequence[str]) -> str:
    """32 hexadecimal characters. As JSON no two lists of texts look alike, wherever their boundaries lie."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:32]


def _turns(messages: Sequence[Message]) -> list[str]:
    return [text for message in messages for text in (message["role"], message["content"])]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answered(prompt: Any, answer: Any) -> list[Any]:
    """A conversation that ends with this answer. The prompt is a text, or the messages so far."""
    turns = list(prompt) if isinstance(prompt, list) else [user(prompt)]
    return [*turns, {"role": "assistant", "content": answer}]
