"""A preference pair, before and after it was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NotRequired, TypedDict

from mixdpo_ray.pairs.template_inputs import NO_INPUTS, TemplateInputs


class Message(TypedDict):
    role: str
    content: str
    tool_calls: NotRequired[list[Any]]  # of an assistant's turn
    tool_call_id: NotRequired[str]  # of a tool's turn, which answers a call
    name: NotRequired[str]


PLAIN_KEYS = 2  # role and content: all that most turns have


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
    template: tuple[Any, Any] = (None, None)  # tools, and settings of the chat template


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
    template: TemplateInputs = NO_INPUTS
    answers: tuple[tuple[Message, ...], tuple[Message, ...]] | None = None  # their turns, where one is more than a text

    @cached_property
    def pair_id(self) -> str:
        """The hash of its texts; what is more than texts adds one, so that their number is odd."""
        texts = [*_turns(self.prompt), self.chosen, self.rejected]
        if self.template or self.answers or any(len(turn) > PLAIN_KEYS for turn in self.prompt):
            whole = {"template": asdict(self.template), "prompt": self.prompt, "answers": self.answers}
            texts.append(json.dumps(whole, sort_keys=True))
        return content_hash(texts)

    @property
    def exchanged(self) -> Pair:
        """The pair with each answer, and its rating, for the other one."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            answers=None if self.answers is None else self.answers[::-1],
            score_chosen=self.score_rejected,
            score_rejected=self.score_chosen,
        )

    @cached_property
    def prompt_id(self) -> str:
        """What is held out together."""
        return self.group or prompt_hash(self.prompt)


def prompt_hash(messages: Sequence[Message], template: TemplateInputs = NO_INPUTS) -> str:
    """The prompt_id of these turns; those that are answered are told apart by their tools too."""
    return content_hash([*_turns(messages), *([json.dumps(asdict(template))] if template else [])])


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
