"""Rows of a prompt and one good answer, which are trained by SFT among the hard pairs (data.sft).

They are read in formats of their own, or in any format of pairs, whose chosen answer is taken and whose ratings are not
looked at. A row is checked as the chosen answer of a pair would be; what comes out has no rejected answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.checking import check_pair
from mixdpo_ray.pairs.columns import find_format, formats_of
from mixdpo_ray.pairs.convert import Converter, Origin
from mixdpo_ray.pairs.formats import FORMATS, Format
from mixdpo_ray.pairs.pair import Candidate, Found, Pair, Row, answered
from mixdpo_ray.pairs.settings import SFT_SOURCE, DataSettings
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer

ANSWER_NAMES = ("answer", "completion", "response", "chosen")  # columns with the answer to `prompt`, first come first


def _messages(row: Row) -> Found:
    """The last turn is the answer."""
    return [Candidate(row.get("messages"), None, _source(row), template=_template(row))]


def _answer(column: str, row: Row) -> Found:
    answer = row.get(column)
    if isinstance(answer, list):  # turns behind those of the prompt
        prompt = row.get("prompt")
        before = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        return [Candidate([*before, *answer], None, _source(row), template=_template(row))]
    return [Candidate(answered(row.get("prompt"), answer), None, _source(row), template=_template(row))]


def _template(row: Row) -> tuple[Any, Any]:
    return row.get("tools"), row.get("chat_template_kwargs")


def _source(row: Row) -> str:
    source = row.get("source")
    return source if isinstance(source, str) else "sft"


SFT_FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages, "conversations whose last turn is a good answer"),
    **{
        f"prompt_{name}": Format(("prompt", name), partial(_answer, name), f"prompt and {name}")
        for name in ANSWER_NAMES
    },
}


def kind_of_format(name: str) -> Format:
    return SFT_FORMATS[name] if name in SFT_FORMATS else FORMATS[name]


def format_of_source(setting: str, data: DataSettings, columns: Sequence[str]) -> str:
    """The format of the source that a setting names: of pairs, or of rows with one answer."""
    return _sft_format(data, columns) if setting == SFT_SOURCE else find_format(data, columns)


def _sft_format(data: DataSettings, columns: Sequence[str]) -> str:
    mapping = data.source.columns
    names = {*columns, *(ours for ours, theirs in mapping.items() if theirs in columns)} - set(mapping.values())
    if data.source.format != "auto" or ("messages" not in names and len(formats_of(names)) == 1):
        return find_format(data, columns)
    fitting = [name for name, kind in SFT_FORMATS.items() if names.issuperset(kind.columns)]
    if not fitting:
        raise FormatError(
            f"data.source {data.source.name} has columns {', '.join(columns)}: for SFT it needs messages, or "
            "prompt and answer; name them, as in data.source.columns={prompt: question, answer: reply}"
        )
    return fitting[0]


class SftConverter(Converter):
    """Every row ends as a row without a rejected answer, or as a refusal."""

    def __init__(self, data: DataSettings, format_name: str, tokenizer: Any) -> None:
        self.format, self.mixed = kind_of_format(format_name), None
        self.data = data
        self.tokens = PairTokenizer(tokenizer, data)

    def _made_of(self, candidate: Candidate | str) -> list[Pair] | str:
        row = check_answer(candidate, self.data) if isinstance(candidate, Candidate) else candidate
        return row if isinstance(row, str) else [row]

    def _encoded(self, pairs: list[tuple[Origin, Pair]]) -> Iterator[tuple[Origin, Pair, EncodedPair | str]]:
        for origin, pair in pairs:
            answers = None if pair.answers is None else (pair.answers[0], ())
            yield origin, replace(pair, rejected="", answers=answers), self._encoded_row(pair)

    def _encoded_row(self, pair: Pair) -> EncodedPair | str:
        if pair.answers is None:
            ids = self.tokens.encode_answer(pair.prompt, pair.chosen, pair.template)
            return ids if isinstance(ids, str) else EncodedPair(*ids, [])
        encoded = self.tokens.encode(pair)
        if isinstance(encoded, str):
            return encoded
        notes = tuple(note for note in encoded.notes if "rejected" not in note)
        return replace(encoded, rejected_ids=[], rejected_runs=None, notes=notes)


def check_answer(candidate: Candidate, data: DataSettings) -> Pair | str:
    """The row as a pair whose rejected answer is any other text, until it is encoded; or the reason why it is none."""
    turns = candidate.chosen
    rejected = None
    if isinstance(turns, Sequence) and turns and isinstance(turns[-1], Mapping):
        other = "-" if str(turns[-1].get("content")).strip() != "-" else "+"
        rejected = [*turns[:-1], {"role": "assistant", "content": other}]
    pair = check_pair(replace(candidate, rejected=rejected, margin=0.0, ratings=(None, None)), data)
    if isinstance(pair, str):
        return pair
    return replace(pair, score_chosen=math.nan, score_rejected=math.nan)
