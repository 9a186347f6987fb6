"""What is rated: answers that were drawn for this recipe, answers of a source, or the pairs of the recipe's own data.

Read on the driver and held there. Answers to one prompt belong together wherever they stand; equal texts are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.errors import DataError, RecipeError
from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.convert import Converter, Refusal
from mixdpo_ray.pairs.formats import FORMATS, map_columns
from mixdpo_ray.pairs.pair import Message, prompt_hash
from mixdpo_ray.pairs.pairing import PairSettings
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.pairs.settings import TRAIN_SOURCE, SourceSettings
from mixdpo_ray.pairs.template_inputs import NO_INPUTS, TemplateInputs
from mixdpo_ray.preparation.sources import find_source
from mixdpo_ray.raters.judge import JudgeRater
from mixdpo_ray.raters.rater import UnratedAnswer
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import prompt_turns, read_source, samples_folder, template_of
from mixdpo_ray.training.tokenizer import load_tokenizer

RATED_SOURCE = "answers.rate.source"
ANSWER_COLUMNS = ("answers", "answer")
TEXTS = ("text", "response", "content")


@dataclass(frozen=True)
class DrawnText:
    """An answer before anybody rated it."""

    text: str
    model: str | None = None


@dataclass(frozen=True)
class AnsweredPrompt:
    messages: tuple[Message, ...]
    answers: tuple[DrawnText, ...]  # different texts, in the order in which they were found; of a pair, chosen first
    drawn: int  # equal ones among them
    file: str
    row: int
    template: TemplateInputs = NO_INPUTS

    @cached_property
    def prompt_id(self) -> str:
        return prompt_hash(self.messages, self.template)

    @property
    def unrated(self) -> list[UnratedAnswer]:
        return [UnratedAnswer(self.messages, answer.text, self.template) for answer in self.answers]


@dataclass(frozen=True)
class ReadAnswers:
    prompts: tuple[AnsweredPrompt, ...]
    refused: tuple[Refusal, ...]
    rows: int  # of the source, the refused ones among them
    origin: str  # for people
    source: SourceSettings
    setting: str  # that names the source


def read_what_is_rated(recipe: Recipe) -> ReadAnswers:
    _refuse_wrong_raters(recipe)
    asked = recipe.answers.rate
    if asked.pairs:
        return _pairs(recipe)
    if asked.source is not None:
        with blamed_on(RATED_SOURCE):
            return _answers(asked.source, RATED_SOURCE)
    drawn = storage.join(samples_folder(recipe), f"{recipe.output.name}.jsonl")
    if not storage.exists(drawn):
        raise DataError(
            f"{drawn} does not exist: draw answers for this recipe by jobs/sample.py first, name others by "
            f"{RATED_SOURCE}.path, or rate the recipe's own pairs by answers.rate.pairs=true"
        )
    limit = recipe.data.source.max_quarantined_fraction
    return _answers(SourceSettings(path=drawn, max_quarantined_fraction=limit), TRAIN_SOURCE)


def _answers(settings: SourceSettings, setting: str) -> ReadAnswers:
    source = find_source(settings)
    _refuse_columns(settings, source.columns(settings.max_row_bytes))
    rows = list(read_source(source, settings.max_row_bytes))
    found, refused = _by_prompt(rows, settings.columns)
    if not found:
        raise DataError(f"data.source {settings.name} has no answers that can be read: give others")
    return ReadAnswers(tuple(found), tuple(refused), len(rows), settings.name, settings, setting)


def _refuse_columns(settings: SourceSettings, there: Sequence[str]) -> None:
    if settings.format not in ("auto", "rated_answers"):
        raise DataError(f"data.source.format {settings.format} is one of pairs: leave it out")
    known = {*there, *(ours for ours, theirs in settings.columns.items() if theirs in there)}
    lacks = [] if "prompt" in known else ["prompt"]
    lacks += [] if known.intersection(ANSWER_COLUMNS) else ["answers or answer"]
    if lacks:
        raise DataError(
            f"data.source has columns {', '.join(there)}, and lacks {' and '.join(lacks)}: name them, as in "
            "data.source.columns={prompt: question, answers: responses}"
        )


def _by_prompt(rows: Iterable[RawRow], columns: Mapping[str, str]) -> tuple[list[AnsweredPrompt], list[Refusal]]:
    groups: dict[str, tuple[RawRow, tuple[Message, ...], TemplateInputs, list[DrawnText]]] = {}
    refused: list[Refusal] = []
    for raw in rows:
        value = None if raw.value is None else map_columns(raw.value, columns)
        made = raw.reason or "corrupt_line" if value is None else _read(value)
        if isinstance(made, str):
            refused.append(Refusal(raw.file, raw.row, made))
            continue
        messages, template, texts = made
        groups.setdefault(prompt_hash(messages, template), (raw, messages, template, []))[3].extend(texts)
    found = [
        AnsweredPrompt(messages, _different(texts), len(texts), raw.file, raw.row, template)
        for raw, messages, template, texts in groups.values()
    ]
    return found, refused


def _read(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], TemplateInputs, list[DrawnText]] | str:
    messages, template = prompt_turns(row.get("prompt")), template_of(row)
    if isinstance(messages, str) or isinstance(template, str):
        return messages if isinstance(messages, str) else str(template)
    answers = row.get("answers", [row.get("answer")] if "answer" in row else None)
    if not isinstance(answers, list):
        return "malformed_row"
    texts = [_drawn_text(answer, row.get("model")) for answer in answers]
    if not all(isinstance(text, DrawnText) for text in texts):
        return "malformed_row"
    try:
        "".join(text.text for text in texts if text).encode()
    except UnicodeEncodeError:
        return "lone_surrogate"
    written = [text for text in texts if text and text.text.strip()]
    return (messages, template, written) if written else "empty_answer"


def _drawn_text(answer: Any, model: Any) -> DrawnText | None:
    """An answer is a text, or a mapping that has it by one of TEXTS: UltraFeedback's completions are some."""
    text, own = answer, None
    if isinstance(answer, Mapping):
        text, own = next((answer[name] for name in TEXTS if name in answer), None), answer.get("model")
    name = own if isinstance(own, str) else model if isinstance(model, str) else None
    return DrawnText(text, name) if isinstance(text, str) else None


def _different(texts: Sequence[DrawnText]) -> tuple[DrawnText, ...]:
    found: dict[str, DrawnText] = {}
    for text in texts:
        found.setdefault(text.text.strip(), text)
    return tuple(found.values())


def _pairs(recipe: Recipe) -> ReadAnswers:
    """Each pair by itself, whatever it is rated in its source."""
    if recipe.data.source.mix:
        raise RecipeError(
            "answers.rate.pairs rates the pairs of one source, and data.source.mix names several: rate each by itself, "
            'as in "data.source={path: FILE}"'
        )
    data = recipe.data.model_copy(
        update={"missing_score": "hard", "negative_margin": "hard", "margin_scale": "none", "pair": PairSettings()}
    )
    source = find_source(data.source)
    name = find_format(data, source.columns(data.max_row_bytes))
    if FORMATS[name].answers is not None:
        raise DataError(
            f"data.source.format {name} holds several answers to a prompt and no pairs: leave answers.rate.pairs out, "
            f"and name them by {RATED_SOURCE}, as in {{path: FILE, columns: {{prompt: instruction, answers: replies}}}}"
        )
    converter = Converter(data, name, load_tokenizer(recipe.model))
    pairs, refused = converter.checked(read_source(source, data.max_row_bytes))
    refused += [Refusal(origin.file, origin.row, "several_turns") for origin, pair in pairs if pair.answers]
    pairs = [(origin, pair) for origin, pair in pairs if not pair.answers]
    unique = {pair.pair_id: (origin, pair) for origin, pair in reversed(pairs)}
    found = [
        AnsweredPrompt(
            pair.prompt, (DrawnText(pair.chosen), DrawnText(pair.rejected)), 2, origin.file, origin.row, pair.template
        )
        for origin, pair in reversed(unique.values())
    ]
    if not found:
        raise DataError(f"data.source {source.name} has no pair that can be rated: jobs/prepare.py tells why")
    return ReadAnswers(tuple(found), tuple(refused), len(pairs) + len(refused), source.name, data.source, TRAIN_SOURCE)


def _refuse_wrong_raters(recipe: Recipe) -> None:
    raters = recipe.answers.rate.raters
    if not raters:
        raise RecipeError(
            "answers.rate.raters names none: give one, such as {reward: {kind: reward_model, model: ...}} or "
            "{judge: {kind: judge}}"
        )
    judges = [name for name, rater in raters.items() if isinstance(rater, JudgeRater)]
    if judges and recipe.answers.judge is None:
        raise RecipeError(
            f"answers.rate.raters.{judges[0]} asks the recipe's judge, and there is none: give answers.judge, such as "
            "{engine: http, http: {url: ..., model: ...}}"
        )
