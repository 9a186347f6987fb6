"""The prompts that are answered: those of a source of their own, or those of the recipe's own pairs.

Read on the driver and held there, 60,000 prompts are about 100 MB. Like a pair, a prompt is kept, or refused with its
file, row and reason; one that stands in the source several times is answered once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.convert import Converter, Refusal
from mixdpo_ray.pairs.formats import FORMATS, TEMPLATE_COLUMNS, map_columns
from mixdpo_ray.pairs.pair import Message, Row, prompt_hash, user
from mixdpo_ray.pairs.quarantine import QUARANTINE, Quarantine, over_budget, within_budget
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.pairs.settings import HELD_OUT_SOURCE, TRAIN_SOURCE, DataSettings, SourceSettings, mixed_name
from mixdpo_ray.pairs.template_inputs import NO_INPUTS, TemplateInputs, template_inputs
from mixdpo_ray.pairs.turns import in_turn, message_of, message_texts, says_something
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.preparation.sources import Source, block_rows, find_source
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.answer_table import SAMPLES_FOLDER
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.training.tokenizer import load_tokenizer

SOURCE = "answers.sample.prompts.source"
PROMPT_COLUMNS = (
    "prompt",
    "messages",
    "instruction",
    "question",
    "context",
    "conversation",
)  # the first one that is there
Refusals = list[Refusal]


@dataclass(frozen=True)
class AskedPrompt:
    messages: tuple[Message, ...]  # ending with the user's
    file: str
    row: int
    template: TemplateInputs = NO_INPUTS

    @cached_property
    def prompt_id(self) -> str:
        return prompt_hash(self.messages, self.template)


def prompts_of_source(recipe: Recipe, settings: SourceSettings, setting: str = SOURCE) -> list[AskedPrompt]:
    """Read without Ray. `setting`: the one that names the source."""
    with blamed_on(setting):
        source = find_source(settings)
        column = _column(source, settings, settings.max_row_bytes)
        found, refused = _asked(read_source(source, settings.max_row_bytes), column, settings.columns)
    return _chosen(recipe, found, refused, source.name, (settings, setting))


def prompts_of_pairs(recipe: Recipe) -> list[AskedPrompt]:
    """Prompts of the recipe's prepared table, which is made where there is none: Ray must be connected."""
    split = "eval" if recipe.answers.sample.prompts.split == "heldout" else "train"
    table = prepared_table(recipe)
    index = table.index(split)
    if split == "eval":
        index = index.part(held_out_sets(table)[MAIN])  # others may hold pairs of data.source too
    wanted = set(index.pair_id)
    by_source = recipe.data.by_source
    apart = {HELD_OUT_SOURCE: by_source[HELD_OUT_SOURCE]} if HELD_OUT_SOURCE in by_source else recipe.data.trained
    found: list[AskedPrompt] = []
    for setting, data in (apart if split == "eval" else recipe.data.trained).items():
        found += _prompts_of_pairs_in(setting, data, wanted, load_tokenizer(recipe.model))
    origin = f"the {recipe.answers.sample.prompts.split} split of {recipe.data.source.name}"
    return _chosen(recipe, found, [], origin, (recipe.data.source, TRAIN_SOURCE))


def _prompts_of_pairs_in(setting: str, data: DataSettings, wanted: set[str], tokenizer: Any) -> list[AskedPrompt]:
    """Those of the pairs that are wanted; what is refused, the table has told."""
    source = find_source(data.source)
    name = find_format(data, source.columns(data.max_row_bytes))
    pairs, _ = Converter(data, name, tokenizer, mixed_name(setting)).checked(read_source(source, data.max_row_bytes))
    return [
        AskedPrompt(pair.prompt, origin.file, origin.row, pair.template)
        for origin, pair in pairs
        if pair.pair_id in wanted
    ]


def read_source(source: Source, max_row_bytes: int) -> Iterator[RawRow]:
    if source.mapped is not None:
        yield from (raw for block in source.blocks() for raw in block_rows(source.name, block))
    for file_slice in source.file_slices() if source.mapped is None else ():
        yield from file_slice.read(max_row_bytes)


def _column(source: Source, settings: SourceSettings, max_row_bytes: int) -> str:
    """The column of the prompts: what data.source.columns calls prompt, or the first of PROMPT_COLUMNS."""
    there = source.columns(max_row_bytes)
    if settings.format in FORMATS:
        raise DataError(f"data.source.format {settings.format} is one of pairs: leave it out, prompts have a column")
    read = ("prompt", *TEMPLATE_COLUMNS)
    if idle := [ours for ours in settings.columns if ours not in read]:
        raise DataError(
            f"data.source.columns maps {', '.join(idle)}, and of prompts only {', '.join(read)} are read: leave it out"
        )
    mapped = settings.columns.get("prompt")
    if mapped in there:
        return "prompt"
    found = [name for name in PROMPT_COLUMNS if name in there and mapped is None]
    if not found:
        raise DataError(
            f"data.source has columns {', '.join(there)}, and not {mapped or ' or '.join(PROMPT_COLUMNS)}: name "
            "the one with the prompts, as in data.source.columns={prompt: question}"
        )
    return found[0]


def _asked(rows: Iterable[RawRow], column: str, columns: Mapping[str, str]) -> tuple[list[AskedPrompt], Refusals]:
    found: list[AskedPrompt] = []
    refused: Refusals = []
    for raw in rows:
        made: AskedPrompt | str = raw.reason or "corrupt_line"
        if raw.value is not None:
            made = _prompt_of(raw, map_columns(raw.value, columns), column)
        if isinstance(made, str):
            refused.append(Refusal(raw.file, raw.row, made))
        else:
            found.append(made)
    return found, refused


def _prompt_of(raw: RawRow, row: Row, column: str) -> AskedPrompt | str:
    messages, template = prompt_turns(row.get(column)), template_of(row)
    if isinstance(messages, str):
        return messages
    return template if isinstance(template, str) else AskedPrompt(messages, raw.file, raw.row, template)


def template_of(row: Row) -> TemplateInputs | str:
    """What a row hands to the chat template, or a reason of checking.REASONS."""
    return template_inputs(*(row.get(name) for name in TEMPLATE_COLUMNS))


def prompt_turns(value: Any) -> tuple[Message, ...] | str:
    """The turns of a text or of messages, up to the last one of the user; or the reason why they are none."""
    turns = [user(value)] if isinstance(value, str) else value
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Mapping) for turn in turns):
        return "bad_turns"
    found = [message_of(turn) for turn in turns]
    messages = tuple(message for message in found if message is not None)
    if messages and messages[-1]["role"] == "assistant":  # an answer that somebody else gave
        messages = messages[:-1]
    if None in found or not in_turn(messages) or messages[-1]["role"] == "assistant":
        return "bad_turns"
    if not all(map(says_something, messages)):
        return "empty_prompt"
    try:
        "".join(text for message in messages for text in message_texts(message)).encode()
    except UnicodeEncodeError:
        return "lone_surrogate"
    return messages


def with_system_prompt(messages: Sequence[Message], text: str | None) -> list[Message]:
    """The turns behind this system prompt; their own counts where they have one."""
    own = any(message["role"] == "system" for message in messages)
    return list(messages) if text is None or own else [Message(role="system", content=text), *messages]


def asked_source(recipe: Recipe) -> tuple[SourceSettings, str]:
    """The source that prompts come from, and the setting that names it."""
    own = recipe.answers.sample.prompts.source
    return (recipe.data.source, TRAIN_SOURCE) if own is None else (own, SOURCE)


def _chosen(
    recipe: Recipe, found: list[AskedPrompt], refused: Refusals, origin: str, limits: tuple[SourceSettings, str]
) -> list[AskedPrompt]:
    """Each prompt once, in the order of the source, and of these the part that is asked for."""
    refuse_too_many(refused, len(found) + len(refused), origin, refused_rows_file(recipe), *limits)
    unique = list({prompt.prompt_id: prompt for prompt in found}.values())
    first, most = recipe.answers.sample.prompts.skip, recipe.answers.sample.prompts.most
    chosen = unique[first : None if most is None else first + most]
    if not chosen:
        why = f"and answers.sample.prompts.skip leaves out {first}" if unique else "that can be read"
        raise DataError(f"{origin} has {len(unique)} prompts, {why}: nothing is left to answer")
    return chosen


def refuse_too_many(
    refused: Sequence[Refusal], rows: int, origin: str, path: str, source: SourceSettings, setting: str
) -> None:
    """Write the rows that were refused to a file; more than the source's max_quarantined_fraction stop the job."""
    if not refused:
        return
    quarantine = Quarantine.of(refused)
    quarantine.write(path)
    if not within_budget(quarantine.counts, rows, source.max_quarantined_fraction):
        raise over_budget(quarantine, rows, source, path, setting)
    reasons = ", ".join(f"{count} {reason}" for reason, count in quarantine.counts.items())
    say(f"warning: {len(refused)} of {rows} rows of {origin} were refused ({reasons}): {path}")


def refused_rows_file(recipe: Recipe, file: str = QUARANTINE) -> str:
    return storage.join(samples_folder(recipe), f"{recipe.output.name}.{file}")


def samples_folder(recipe: Recipe) -> str:
    return storage.join(storage.absolute(recipe.output.storage_path), SAMPLES_FOLDER)
