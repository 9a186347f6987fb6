"""Tokens of answers of several turns, and which of them are the assistant's: only those are trained on.

A template with {% generation %} blocks says so itself. Of others the turns are told apart by rendering: each answer of
the assistant stands behind what the template renders to ask for it, and ends where it ends when nothing follows. What
it was asked by must come to the same text, and the same tokens, once all turns are there; else the row is refused, for
what is trained would not be what the model meets (some templates take thoughts out of earlier turns).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Protocol

from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.pairs.template_inputs import TemplateInputs
from mixdpo_ray.pairs.turns import leaves_calls_out

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
Runs = list[int]  # lengths of runs of tokens: the assistant's, others, the assistant's, ...


@dataclass(frozen=True)
class EncodedAnswer:
    prompt_ids: list[int]
    ids: list[int]
    runs: Runs | None  # none where all are the assistant's


class TemplateTokens(Protocol):
    """What tokens.PairTokenizer knows of a tokenizer and its template."""

    tokenizer: Any
    special: re.Pattern[str]
    template_end: str
    end: str

    def rendering(
        self, messages: Sequence[Message], template: TemplateInputs, add_generation_prompt: bool = False
    ) -> str: ...

    def ids(self, texts: list[str]) -> list[list[int]]: ...

    def completion_ids(self, texts: list[tuple[str, str]]) -> list[list[int]]: ...


class AnswerTurns:
    def __init__(self, tokens: TemplateTokens) -> None:
        self.tokens = tokens
        self.marked = GENERATION.search(str(tokens.tokenizer.chat_template)) is not None

    def encode(
        self, prompt: Sequence[Message], answer: Sequence[Message], template: TemplateInputs
    ) -> EncodedAnswer | str:
        """The ids of a prompt and of the turns behind it, or a reason of checking.REASONS."""
        asked = self.tokens.rendering(prompt, template, add_generation_prompt=True)
        whole = self.tokens.rendering([*prompt, *answer], template)
        if not (whole.startswith(asked) and whole.endswith(self.tokens.template_end)):
            return "template_changes_prompt"
        if leaves_calls_out(whole, [*prompt, *answer]):
            return "template_refuses_turns"
        if self.marked and len(answer) > 1:
            return self._by_marks(prompt, answer, template, asked)
        return self._by_turns(prompt, answer, template, whole)

    def _by_marks(
        self, prompt: Sequence[Message], answer: Sequence[Message], template: TemplateInputs, asked: str
    ) -> EncodedAnswer | str:
        found = self.tokens.tokenizer.apply_chat_template(
            [*prompt, *answer], return_dict=True, return_assistant_tokens_mask=True, **template.arguments
        )
        ids, mask, before = list(found["input_ids"]), list(found["assistant_masks"]), self.tokens.ids([asked])[0]
        if ids[: len(before)] != before:
            return "turns_not_separable"
        end = len(ids) - len(self._behind_the_end())
        runs = runs_of(mask[len(before) : end])
        return EncodedAnswer(before, ids[len(before) : end], runs) if any(runs[::2]) else "no_assistant_tokens"

    def _behind_the_end(self) -> list[int]:
        """The tokens that the template puts behind the last end token: they belong to a turn that does not come."""
        behind = self.tokens.template_end.removeprefix(self.tokens.end)
        return self.tokens.ids([behind])[0] if behind != self.tokens.template_end else []

    def _by_turns(
        self, prompt: Sequence[Message], answer: Sequence[Message], template: TemplateInputs, whole: str
    ) -> EncodedAnswer | str:
        at, prompt_ids, ids, runs = 0, [0][:0], [0][:0], [0][:0]
        for number, turn in enumerate(answer):
            if turn["role"] != "assistant":
                continue
            before, last = [*prompt, *answer[:number]], number == len(answer) - 1
            asked = self.tokens.rendering(before, template, add_generation_prompt=True)
            said = whole[len(asked) : len(whole) - len(self.tokens.template_end)] + self.tokens.end if last else None
            if said is None:
                said = self._turn(self.tokens.rendering([*before, turn], template), asked, whole)
            if said is None or not whole.startswith(asked):
                return "turns_not_separable"
            if number == 0:
                prompt_ids = self.tokens.ids([asked])[0]
            else:
                between = self.tokens.completion_ids([(whole[:at], whole[at : len(asked)])])[0]
                ids, runs = ids + between, [*runs, len(between)]
                if prompt_ids + ids != self.tokens.ids([asked])[0]:
                    return "turns_not_separable"
            own = self.tokens.completion_ids([(asked, said)])[0]
            ids, runs, at = ids + own, [*runs, len(own)], len(asked) + len(said)
        return EncodedAnswer(prompt_ids, ids, runs if len(runs) > 1 else None)

    def _turn(self, alone: str, asked: str, whole: str) -> str | None:
        """What the assistant says behind `asked`, up to its end token; none where that depends on what follows.

        `alone`: the rendering that ends with this turn, which may have more in front of the words (an empty thought).
        """
        if not alone.startswith(asked):
            return None
        tail = alone[len(asked) :]
        ends = [end.end() for end in self.tokens.special.finditer(tail) if not self._says_more(tail[end.end() :])]
        if not ends:
            said = tail.removesuffix(self.tokens.template_end)
            return said if whole.startswith(asked + said) else None
        for end in reversed(ends):  # of the last turn alone a template may say that the text ends, too
            if whole.startswith(asked + tail[:end]):
                return tail[:end]
        mark = self.tokens.special.findall(tail[: ends[0]])[-1]
        found = whole.find(mark, len(asked))
        said = whole[len(asked) : found + len(mark)]
        return said if found >= 0 and tail[: ends[0]].endswith(said) else None

    def _says_more(self, text: str) -> bool:
        """Whether there are words beside special tokens."""
        return bool(self.tokens.special.sub("", text).strip())


def runs_of(mask: Sequence[Any]) -> Runs:
    """Lengths of runs, beginning with the assistant's, which may be 0."""
    runs = [len(list(group)) for _, group in groupby(map(bool, mask))]
    return [0, *runs] if mask and not mask[0] else runs


def runs_within(runs: Runs, length: int) -> Runs:
    """The runs of the first tokens."""
    ends = [min(end, length) for end in accumulate(runs)]
    cut = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    while len(cut) > 1 and cut[-1] == 0:
        cut.pop()
    return cut
