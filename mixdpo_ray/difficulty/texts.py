"""Texts of pairs for models that read text: decoded from the prepared table's tokens by the policy's tokenizer.

The table is what is trained on, after truncation, selection and whatever else was done to the pairs, so it is read and
not the sources again. Answers are what their tokens say without the end token. Of a prompt the template's headers have
to be taken off: what stands between turns is found by rendering a probe, and a prompt counts as understood if rendering
the turns that were found gives the same text again. Others (cut ones above all) become one turn with all their text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from jinja2.exceptions import TemplateError

from mixdpo_ray.pairs.pair import Message

ROLES = ("user", "assistant")
PROBES = ("firstprobe", "secondprobe", "thirdprobe")


@dataclass(frozen=True)
class Seams:
    """What a template puts before the first turn, between turns, and before the answer."""

    head: str
    between: tuple[str, str]  # user to assistant, assistant to user
    tail: str
    system: tuple[str, str] | None  # before a system turn, and from there to the first user turn


class Texts:
    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.seams = self._find_seams()
        self.opening = self._find_opening()

    def answer(self, ids: Iterable[int]) -> str:
        text = self._decoded(ids, skip_special_tokens=True).strip()
        return text.removeprefix(self.opening).lstrip()

    def understood(self, ids: Sequence[int]) -> bool:
        return self._turns(self._decoded(ids)) is not None

    def prompt(self, ids: Sequence[int]) -> list[Message]:
        turns = self._turns(self._decoded(ids))
        if turns is None:
            whole = self._decoded(ids, skip_special_tokens=True).strip()
            return [Message(role="user", content=whole)]
        return turns

    def _decoded(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def _render(self, turns: Sequence[Message], *, answered: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=not answered))

    def _find_opening(self) -> str:
        """What the template puts before every answer, such as an empty think block."""
        asked = [Message(role="user", content=PROBES[0])]
        whole = self._render([*asked, Message(role="assistant", content=PROBES[1])], answered=True)
        return whole.removeprefix(self._render(asked)).partition(PROBES[1])[0].strip()

    def _find_seams(self) -> Seams | None:
        """None for a template that does more than putting texts between what stands before and behind them."""
        pieces = self._pieces(("user", "assistant", "user"))
        if pieces is None or not pieces[1] or not pieces[2]:
            return None
        head, to_assistant, to_user, tail = pieces
        with_system = self._pieces(("system", "user"))
        system = (with_system[0], with_system[1]) if with_system and with_system[1] else None
        return Seams(head, (to_assistant, to_user), tail, system)

    def _pieces(self, roles: Sequence[str]) -> list[str] | None:
        try:
            rest = self._render([Message(role=role, content=probe) for role, probe in zip(roles, PROBES, strict=False)])
        except TemplateError:
            return None
        pieces = []
        for probe in PROBES[: len(roles)]:
            before, found, rest = rest.partition(probe)
            if not found:
                return None
            pieces.append(before)
        return [*pieces, rest]

    def _turns(self, text: str) -> list[Message] | None:
        """The turns from which the template makes this text."""
        seams = self.seams
        if seams is None:
            return None
        starts = [(seams.system[0], ("system",))] if seams.system else []
        for head, first in [*starts, (seams.head, ())]:
            if text.startswith(head) and text.endswith(seams.tail) and len(text) >= len(head) + len(seams.tail):
                turns = self._cut(text[len(head) : len(text) - len(seams.tail)], seams, with_system=bool(first))
                if turns and self._same(turns, text):
                    return turns
        return None

    def _same(self, turns: list[Message], text: str) -> bool:
        try:
            return self._render(turns) == text
        except TemplateError:
            return False

    @staticmethod
    def _cut(body: str, seams: Seams, *, with_system: bool) -> list[Message]:
        turns: list[Message] = []
        if with_system:
            assert seams.system is not None
            content, found, body = body.partition(seams.system[1])
            if not found:
                return []
            turns.append(Message(role="system", content=content))
        for role, seam in cycle(zip(ROLES, seams.between, strict=True)):
            content, found, body = body.partition(seam)
            turns.append(Message(role=role, content=content))
            if not found:
                break
        return turns
