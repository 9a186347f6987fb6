"""Pairs to token ids, by the tokenizer's own chat template.

The prompt is tokenised once, as the template renders it before an answer is generated, so its ids are the same for both
answers by construction. What the template renders after that is the completion. Its text is tokenised apart, because
that is how a model meets it: prompt ids first, then one token after another. It ends with the template's end token,
which is trained on once; a newline that a template puts behind it belongs to the next turn and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.wording import first_line

# a template is a program: whoever wrote it may add text to a number, or look for what is not there
TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
TEMPLATE_PROBE = "probe of where the answer ends"


@dataclass(frozen=True)
class EncodedPair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    notes: tuple[str, ...] = ()  # what truncation cut


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
        self._special = control_tokens(tokenizer)
        self._template_end, self._end = self._find_end()
        # tokenizers of SentencePiece's kind put a space before a text: they need to see what it follows
        self._anchored = "".join(tokenizer.tokenize("a")[:1]).startswith(("▁", "Ġ"))

    def encode(self, pair: Pair) -> EncodedPair | str:
        """The ids, or a reason of checking.REASONS."""
        return self.encode_many([pair])[0]

    def encode_many(self, pairs: Sequence[Pair]) -> list[EncodedPair | str]:
        """Encode pairs, in their order; the tokenizer is called once for all of them."""
        rendered = [self._render(pair) for pair in pairs]
        good = [texts for texts in rendered if isinstance(texts, Rendered)]
        prompts = self._ids([texts.prompt for texts in good])
        chosen = self._completion_ids([(texts.prompt, texts.chosen) for texts in good])
        rejected = self._completion_ids([(texts.prompt, texts.rejected) for texts in good])
        ids = zip(prompts, chosen, rejected, strict=True)
        return [texts if isinstance(texts, str) else self._fit(*next(ids)) for texts in rendered]

    def encode_answer(self, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]] | str:
        """The ids of a prompt and of one answer, as those of a pair would be, or a reason of checking.REASONS."""
        texts = self._rendered(messages, (answer,))
        if isinstance(texts, str):
            return texts
        prompt = self._fit_prompt(self._ids([texts[0]])[0])
        if isinstance(prompt, str):
            return prompt
        ids, room = self._completion_ids([texts])[0], self.data.max_length - len(prompt)
        if len(ids) > room and self.data.truncation != "truncate":
            return "answer_too_long"
        return prompt, ids[:room]

    def _render(self, pair: Pair) -> Rendered | str:
        texts = self._rendered(pair.prompt, (pair.chosen, pair.rejected))
        return texts if isinstance(texts, str) else Rendered(*texts)

    def _rendered(self, messages: Sequence[Message], answers: Sequence[str]) -> Any:
        """The prompt and each completion, or why there are none."""
        texts = [*(message["content"] for message in messages), *answers]
        if any(self._special.search(text) for text in texts):
            return "control_token"
        try:
            prompt = self._template(messages, add_generation_prompt=True)
            completions = [self._completion(messages, prompt, answer) for answer in answers]
        except TEMPLATE_ERRORS:
            return "template_refuses_turns"
        return "template_changes_prompt" if None in completions else (prompt, *completions)

    def _completion(self, messages: Sequence[Message], prompt: str, answer: str) -> str | None:
        """None where the prompt looks different once an answer follows it, or the end depends on the answer."""
        whole = self._template([*messages, {"role": "assistant", "content": answer}])
        if not (whole.startswith(prompt) and whole.endswith(self._template_end)):
            return None
        return whole[len(prompt) : len(whole) - len(self._template_end)] + self._end

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )

    def _render_probe(self) -> str:
        """One turn and its answer, which any template must take."""
        try:
            return self._template(
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
        return int(max([*plain, *self._ids([self._render_probe() + self._end])[0], padding or 0]))

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
        if match := self._special.search(behind):  # an end-of-turn token that is not the tokenizer's eos
            return behind, behind[: match.end()]
        if not eos:
            raise ModelError(f"neither the chat template nor tokenizer {self.tokenizer.name_or_path} has an end token")
        return behind, behind.rstrip() + eos

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Nothing is added to what the template rendered: no second BOS."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _completion_ids(self, texts: list[tuple[str, str]]) -> list[list[int]]:
        if not self._anchored:
            return self._ids([completion for _, completion in texts])
        anchors = self._ids([prompt[-1:] for prompt, _ in texts])
        anchored = self._ids([prompt[-1:] + completion for prompt, completion in texts])
        alone = self._ids([completion for _, completion in texts])
        return [
            ids[len(anchor) :] if ids[: len(anchor)] == anchor else plain
            for anchor, ids, plain in zip(anchors, anchored, alone, strict=True)
        ]

    def _fit(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> EncodedPair | str:
        """Both answers must fit behind the prompt: refused, or cut where data.truncation allows it."""
        if chosen == rejected:
            return "identical_answers"
        whole, cut, notes = len(prompt), self.data.truncation == "truncate", []
        fitting = self._fit_prompt(prompt)
        if isinstance(fitting, str):
            return fitting
        prompt = fitting
        if len(prompt) < whole:
            notes.append("truncated_prompt")
        room = self.data.max_length - len(prompt)
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if len(answer) > room:
                notes.append(f"truncated_{name}")
        if not cut and notes:
            return "answer_too_long"
        chosen, rejected = chosen[:room], rejected[:room]
        if chosen == rejected:
            return "answers_equal_after_truncation"
        return EncodedPair(prompt, chosen, rejected, tuple(notes))

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
