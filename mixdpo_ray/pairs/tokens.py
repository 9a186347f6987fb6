"""Pairs to token ids, by the tokenizer's own chat template.

The prompt is tokenised once, as the template renders it before an answer is generated, so its ids are the same for both
answers by construction. What the template renders after that is the completion. Its text is tokenised apart, because
that is how a model meets it: prompt ids first, then one token after another. It ends with the template's end token,
which is trained on once; a newline that a template puts behind it belongs to the next turn and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.answer_turns import AnswerTurns, Runs, runs_within
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.pairs.template_inputs import NO_INPUTS, TemplateInputs
from mixdpo_ray.pairs.turns import Conversation, leaves_calls_out, message_texts
from mixdpo_ray.wording import first_line

# a template is a program: whoever wrote it may add text to a number, or look for what is not there
TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
TEMPLATE_PROBE = "probe of where the answer ends"
TOOLS_IGNORED = "tools_ignored"  # among the notes


@dataclass(frozen=True)
class EncodedPair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    notes: tuple[str, ...] = ()  # what truncation cut
    chosen_runs: Runs | None = None  # none where all of the answer is the assistant's
    rejected_runs: Runs | None = None


@dataclass(frozen=True)
class Rendered:
    prompt: str
    chosen: str
    rejected: str


def control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """What no text of a person may hold: it would become a token that only the template may write."""
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "$^")


class PairTokenizer:
    def __init__(self, tokenizer: Any, data: DataSettings) -> None:
        self.tokenizer = tokenizer
        self.data = data
        if not tokenizer.chat_template:
            raise ModelError(
                f"tokenizer {tokenizer.name_or_path} has no chat template: set model.chat_template to a file of one; "
                "jobs/recipes/plain-chat.jinja suits a base model, and a model that was tuned to chat brings its own, "
                "as chat_template.jinja or in tokenizer_config.json"
            )
        self.special = control_tokens(tokenizer)
        self.template_end, self.end = self._find_end()
        # tokenizers of SentencePiece's kind put a space before a text: they need to see what it follows
        self.turns = AnswerTurns(self)
        self._anchored = "".join(tokenizer.tokenize("a")[:1]).startswith(("▁", "Ġ"))

    def encode(self, pair: Pair) -> EncodedPair | str:
        """The ids, or a reason of checking.REASONS."""
        return self.encode_many([pair])[0]

    def encode_many(self, pairs: Sequence[Pair]) -> list[EncodedPair | str]:
        """Encode pairs, in their order; the tokenizer is called once for all of them."""
        rendered = [self._render(pair) for pair in pairs]  # texts, but ids where an answer has several turns
        good = [texts for texts in rendered if isinstance(texts, Rendered)]
        prompts = self.ids([texts.prompt for texts in good])
        chosen = self.completion_ids([(texts.prompt, texts.chosen) for texts in good])
        rejected = self.completion_ids([(texts.prompt, texts.rejected) for texts in good])
        ids = zip(prompts, chosen, rejected, strict=True)
        made: list[EncodedPair | str] = []
        for pair, texts in zip(pairs, rendered, strict=True):
            if isinstance(texts, EncodedPair):
                texts = self._fit(texts)
            elif isinstance(texts, Rendered):
                texts = self._fit(EncodedPair(*next(ids)))
            if isinstance(texts, EncodedPair) and self._ignores_tools(pair):
                texts = replace(texts, notes=(*texts.notes, TOOLS_IGNORED))
            made.append(texts)
        return made

    def encode_answer(
        self, messages: Sequence[Message], answer: str, template: TemplateInputs = NO_INPUTS
    ) -> tuple[list[int], list[int]] | str:
        """The ids of a prompt and of one answer, as those of a pair would be, or a reason of checking.REASONS."""
        texts = self._rendered(messages, (answer,), template)
        if isinstance(texts, str):
            return texts
        prompt = self._fit_prompt(self.ids([texts[0]])[0])
        if isinstance(prompt, str):
            return prompt
        ids, room = self.completion_ids([texts])[0], self.data.max_length - len(prompt)
        if len(ids) > room and self.data.truncation != "truncate":
            return "answer_too_long"
        return prompt, ids[:room]

    def _render(self, pair: Pair) -> Rendered | EncodedPair | str:
        if pair.answers is not None:
            return self._several_turns(pair, pair.answers)
        texts = self._rendered(pair.prompt, (pair.chosen, pair.rejected), pair.template)
        return texts if isinstance(texts, str) else Rendered(*texts)

    def _several_turns(self, pair: Pair, answers: tuple[Conversation, Conversation]) -> EncodedPair | str:
        if self._holds_control_token([*pair.prompt, *answers[0], *answers[1]], pair.template):
            return "control_token"
        try:
            chosen, rejected = (self.turns.encode(pair.prompt, answer, pair.template) for answer in answers)
        except TEMPLATE_ERRORS:
            return "template_refuses_turns"
        if isinstance(chosen, str) or isinstance(rejected, str):
            return chosen if isinstance(chosen, str) else str(rejected)
        sides = (chosen.ids, rejected.ids, (), chosen.runs, rejected.runs)
        return EncodedPair(chosen.prompt_ids, *sides)

    def _rendered(
        self, messages: Sequence[Message], answers: Sequence[str], template: TemplateInputs = NO_INPUTS
    ) -> Any:
        """The prompt and each completion, or why there are none."""
        if self._holds_control_token([*messages, *map(_answer, answers)], template):
            return "control_token"
        try:
            prompt = self.rendering(messages, template, add_generation_prompt=True)
            completions = [self._completion(messages, prompt, answer, template) for answer in answers]
        except TEMPLATE_ERRORS:
            return "template_refuses_turns"
        if leaves_calls_out(prompt, messages):
            return "template_refuses_turns"
        return "template_changes_prompt" if None in completions else (prompt, *completions)

    def _holds_control_token(self, messages: Sequence[Message], template: TemplateInputs) -> bool:
        texts = [text for message in messages for text in message_texts(message)]
        if template:
            texts += [template.tools, template.settings]
        return any(map(self.special.search, texts))

    def _completion(
        self, messages: Sequence[Message], prompt: str, answer: str, template: TemplateInputs
    ) -> str | None:
        """None where the prompt looks different once an answer follows it, or the end depends on the answer."""
        whole = self.rendering([*messages, _answer(answer)], template)
        if not (whole.startswith(prompt) and whole.endswith(self.template_end)):
            return None
        return whole[len(prompt) : len(whole) - len(self.template_end)] + self.end

    def _ignores_tools(self, pair: Pair) -> bool:
        if not pair.template.tools:
            return False
        without = replace(pair.template, tools="")
        both = (self.rendering(pair.prompt, one, add_generation_prompt=True) for one in (pair.template, without))
        return len(set(both)) == 1

    def rendering(
        self, messages: Sequence[Message], template: TemplateInputs = NO_INPUTS, add_generation_prompt: bool = False
    ) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **template.arguments
            )
        )

    def _render_probe(self) -> str:
        """One turn and its answer, which any template must take."""
        try:
            return self.rendering(
                [Message(role="user", content="a"), Message(role="assistant", content=TEMPLATE_PROBE)]
            )
        except TEMPLATE_ERRORS as error:
            line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path} fails on a question and its answer: {line}"
                f"{first_line(error)}; correct it, or set model.chat_template"
            ) from error

    @property
    def largest_id(self) -> int:
        """The largest token id that a pair or its padding can come to: a model must have a vector for it.

        Special tokens that neither the template nor padding writes do not count: a text that holds one is refused, and
        some tokenizers have more of them than their model has vectors.
        """
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        plain = set(self.tokenizer.get_vocab().values()) - special
        padding = self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        return int(max([*plain, *self.ids([self._render_probe() + self.end])[0], padding or 0]))

    def _find_end(self) -> tuple[str, str]:
        """What the template puts behind an answer, and what of it is trained on: up to the end token."""
        whole = self._render_probe()
        _, found, behind = whole.rpartition(TEMPLATE_PROBE)
        if not found:
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path} does not render the assistant's answer"
            )
        eos = self.tokenizer.eos_token
        if eos and eos in behind:
            return behind, behind[: behind.index(eos) + len(eos)]
        if match := self.special.search(behind):  # an end-of-turn token that is not the tokenizer's eos
            return behind, behind[: match.end()]
        if not eos:
            raise ModelError(f"neither the chat template nor tokenizer {self.tokenizer.name_or_path} has an end token")
        return behind, behind.rstrip() + eos

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Nothing is added to what the template rendered: no second BOS."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def completion_ids(self, texts: list[tuple[str, str]]) -> list[list[int]]:
        if not self._anchored:
            return self.ids([completion for _, completion in texts])
        anchors = self.ids([prompt[-1:] for prompt, _ in texts])
        anchored = self.ids([prompt[-1:] + completion for prompt, completion in texts])
        alone = self.ids([completion for _, completion in texts])
        return [
            ids[len(anchor) :] if ids[: len(anchor)] == anchor else plain
            for anchor, ids, plain in zip(anchors, anchored, alone, strict=True)
        ]

    def _fit(self, pair: EncodedPair) -> EncodedPair | str:
        """Both answers must fit behind the prompt: refused, or cut where data.truncation allows it."""
        if pair.chosen_ids == pair.rejected_ids:
            return "identical_answers"
        whole, cut, notes = len(pair.prompt_ids), self.data.truncation == "truncate", []
        prompt = self._fit_prompt(pair.prompt_ids)
        if isinstance(prompt, str):
            return prompt
        if len(prompt) < whole:
            notes.append("truncated_prompt")
        room = self.data.max_length - len(prompt)
        for name, answer in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
            if len(answer) > room:
                notes.append(f"truncated_{name}")
        if not cut and notes:
            return "answer_too_long"
        chosen, rejected = pair.chosen_ids[:room], pair.rejected_ids[:room]
        if chosen == rejected:
            return "answers_equal_after_truncation"
        runs = [None if one is None else runs_within(one, room) for one in (pair.chosen_runs, pair.rejected_runs)]
        if any(one is not None and not any(one[::2]) for one in runs):
            return "no_assistant_tokens"
        return EncodedPair(prompt, chosen, rejected, tuple(notes), *runs)

    def _fit_prompt(self, prompt: list[int]) -> list[int] | str:
        if len(prompt) > self.data.max_prompt_length:
            if self.data.truncation != "truncate":
                return "prompt_too_long"
            prompt = self._cut_left(prompt)
        return prompt if len(prompt) < self.data.max_length else "answer_truncated_to_nothing"

    def _cut_left(self, prompt: list[int]) -> list[int]:
        """The last tokens, behind the BOS token if there was one."""
        keep_bos = prompt[:1] == [self.tokenizer.bos_token_id] and self.data.max_prompt_length > 1
        start = prompt[:1] if keep_bos else []
        return start + prompt[len(prompt) - self.data.max_prompt_length + len(start) :]


def _answer(text: str) -> Message:
    return Message(role="assistant", content=text)
