"""N answers to each prompt: what is missing is drawn, kept batch by batch, and written out for people in the end.

<storage>/samples/<fingerprint>/   the table (tables/answer_table.py): of one model and one way of decoding, whatever
                                   was asked; more prompts or more answers each add what they lack
<storage>/samples/<name>.jsonl     what this recipe asked for, in the order of its prompts

A killed job has lost the batches that were being written: the same command draws the rest, and an answer by the engine
hf is the one that it would have been.
"""

from __future__ import annotations

import io
import json
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.actor_pool import until_done
from mixdpo_ray.cluster.command import before_ray
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.sampling.engine import AskedAnswer, Engine
from mixdpo_ray.sampling.hf import HfEngine
from mixdpo_ray.sampling.http import HttpEngine
from mixdpo_ray.sampling.prompts import (
    AskedPrompt,
    asked_source,
    prompts_of_pairs,
    prompts_of_source,
    refuse_too_many,
    refused_rows_file,
    samples_folder,
)
from mixdpo_ray.sampling.vllm import VllmEngine
from mixdpo_ray.tables.answer_table import ANSWERS, MESSAGES, AnswerTable, Key
from mixdpo_ray.tables.prepared_table import MANIFEST

UNANSWERABLE = f"unanswerable.{QUARANTINE}"  # prompts that the engine refuses; the other file has rows without one
ENGINES: Mapping[str, Callable[[Recipe], Engine]] = {"hf": HfEngine, "http": HttpEngine, "vllm": VllmEngine}


@dataclass(frozen=True)
class SampleReport:
    model: str
    table: str  # folder
    file: str
    prompts: int
    answers: int
    drawn: int  # the others were there already
    tokens: int
    cut: int
    empty: int
    alike: int  # prompts whose answers are all the same
    unanswered: Mapping[str, int]  # reason -> how often

    def describe(self) -> str:
        reused = f" ({self.answers - self.drawn} of them were there already)" if self.answers > self.drawn else ""
        notes = [
            f"{self.tokens / max(1, self.answers):.0f} tokens on average",
            f"{self.cut} cut at the longest length" if self.cut else "",
            f"{self.empty} empty" if self.empty else "",
            f"{self.alike} prompts whose answers are all the same" if self.alike else "",
        ]
        warnings = [
            f"warning: {sum(self.unanswered.values())} are missing, and asked for again by the same command: {reason}"
            for reason in list(self.unanswered)[:1]
        ]
        return "\n".join(
            [
                f"{self.answers} answers to {self.prompts} prompts by {self.model}{reused}",
                "; ".join(filter(None, notes)),
                f"table: {self.table}",
                f"answers: {self.file}",
                *warnings,
            ]
        )


def sample(recipe: Recipe) -> SampleReport:
    """Draw the answers that the recipe's `sample` section asks for, and that are not there yet."""
    source, prompts = recipe.answers.sample.prompts.source, None
    if source is not None:
        prompts = prompts_of_source(recipe, source)
    engine = ENGINES[recipe.answers.sample.engine](recipe)
    if prompts is not None:
        prompts = answerable_prompts(recipe, engine, prompts)
        table = _table(recipe, engine)
        if not _missing(recipe, table, prompts):
            return _finish(recipe, engine, table, prompts, 0)
    before_ray("sample", *([recipe] if prompts is None else []))
    with ready_cluster(engine.recipe, cpus=engine.cpus, trains=False):
        if prompts is None:
            prompts = answerable_prompts(recipe, engine, prompts_of_pairs(recipe))
        return _draw(recipe, engine, prompts)


def answerable_prompts(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> list[AskedPrompt]:
    """Those that the engine can answer; too many of the others are refused."""
    refused = engine.refused(prompts)
    path = refused_rows_file(recipe, UNANSWERABLE)
    refuse_too_many(refused, len(prompts), "those asked for", path, *asked_source(recipe))
    rows = {(refusal.file, refusal.row) for refusal in refused}
    return [prompt for prompt in prompts if (prompt.file, prompt.row) not in rows]


def _content(recipe: Recipe, engine: Engine) -> dict[str, Any]:
    """What decides an answer besides its key."""
    settings = recipe.answers.sample.model_dump(
        mode="json", include={"decoding", "system_prompt", "chat_template_kwargs"}
    )
    return {**engine.identity, **settings}


def _folder(recipe: Recipe, engine: Engine) -> str:
    return storage.join(samples_folder(recipe), fingerprint(_content(recipe, engine)))


def _table(recipe: Recipe, engine: Engine) -> AnswerTable:
    """The table of this model and this way of decoding, as it is now."""
    content = _content(recipe, engine)
    return AnswerTable.create(_folder(recipe, engine), fingerprint(content), {"model": engine.model, **content})


def _wanted(recipe: Recipe, prompts: Iterable[AskedPrompt]) -> list[Key]:
    return [(prompt.prompt_id, draw) for prompt in prompts for draw in range(recipe.answers.sample.answers_each)]


def _missing(recipe: Recipe, table: AnswerTable, prompts: Sequence[AskedPrompt]) -> list[AskedAnswer]:
    there, of_id = table.keys, {prompt.prompt_id: prompt for prompt in prompts}
    wanted = _wanted(recipe, prompts)
    return [AskedAnswer(of_id[prompt_id], draw) for prompt_id, draw in wanted if (prompt_id, draw) not in there]


def keyed_answers(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> dict[Key, str]:
    """The answers by their keys, of which those are drawn that are not there yet. Ray is connected."""
    with complete_table(recipe, engine, prompts) as (table, drawn):
        _finish(recipe, engine, table, prompts, drawn)
        there = table.keys
        keys = [key for key in _wanted(recipe, prompts) if key in there]
        answers = [text for rows in table.rows(keys) for text in rows["answer"].to_pylist()]
    return dict(zip(keys, answers, strict=True))


def _draw(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> SampleReport:
    with complete_table(recipe, engine, prompts) as (table, drawn):
        return _finish(recipe, engine, table, prompts, drawn)


@contextmanager
def complete_table(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> Iterator[tuple[AnswerTable, int]]:
    """The table with the answers to these prompts, and how many of them were drawn now. Ray is connected.

    It is locked while the body runs: the next process may settle its parts away. The engine was asked what it refuses,
    and each prompt is there once.
    """
    messages = {prompt.prompt_id: prompt.messages for prompt in prompts}
    with exclusive(_folder(recipe, engine)):
        table = _table(recipe, engine)
        total, missing = len(prompts) * recipe.answers.sample.answers_each, _missing(recipe, table, prompts)
        if len(missing) < total:
            say(f"sample: {total - len(missing)} of {total} answers are there already")
        with Counter("sample", "answer") as progress:

            def attempt() -> None:
                if still := _missing(recipe, table, prompts):
                    drawn = engine.answers(still)
                    progress.reach(total - len(still), total)  # behind what the engine says
                    for rows in drawn:
                        table.append(_with_prompts(rows, messages, engine.model, table.manifest.fingerprint))
                        progress.add(len(rows))

            until_done(attempt, "sampling workers", "answers.sample.workers")
        left = _missing(recipe, table, prompts)
        if len(left) < len(missing):
            table.settle()
        yield table, len(missing) - len(left)


def known_table(recipe: Recipe, engine: Engine) -> AnswerTable | None:
    """The table as it is, where there is one; without Ray."""
    folder = _folder(recipe, engine)
    return AnswerTable.open(folder) if storage.exists(storage.join(folder, MANIFEST)) else None


def _with_prompts(rows: pa.Table, messages: Mapping[str, Sequence[Message]], model: str, settings: str) -> pa.Table:
    """What an engine has drawn, in the columns of the table."""
    columns = {name: rows[name] for name in rows.column_names}
    columns["prompt"] = pa.array([messages[prompt_id] for prompt_id in rows["prompt_id"].to_pylist()], MESSAGES)
    columns["model"] = pa.array([model] * len(rows), pa.string())
    columns["settings"] = pa.array([settings] * len(rows), pa.string())
    return pa.table({name: columns[name] for name in ANSWERS.names})


def _finish(
    recipe: Recipe, engine: Engine, table: AnswerTable, prompts: Sequence[AskedPrompt], drawn: int
) -> SampleReport:
    """Write the answers out, and count what a person should know of them."""
    there = table.keys
    keys = [key for key in _wanted(recipe, prompts) if key in there]
    path = storage.join(samples_folder(recipe), f"{recipe.output.name}.jsonl")
    counts, lines = Counts[str](), io.StringIO()
    texts: dict[str, set[str]] = {}
    asked = {prompt.prompt_id: {"prompt": prompt.messages, **prompt.template.columns} for prompt in prompts}
    for rows in table.rows(keys):
        for row in rows.drop_columns("token_ids").to_pylist():
            _count(counts, texts, row)
            row |= asked[row["prompt_id"]]  # with calls of tools, which the table's column has no room for
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    storage.write_bytes(path, lines.getvalue().encode())
    alike = sum(len(answers) == 1 for answers in texts.values()) if recipe.answers.sample.answers_each > 1 else 0
    named = {name: counts[name] for name in ("tokens", "cut", "empty")}
    named |= {"prompts": len(prompts), "answers": len(keys), "drawn": drawn, "alike": alike}
    return SampleReport(engine.model, table.folder, path, unanswered=engine.unanswered, **named)


def _count(counts: Counts[str], texts: dict[str, set[str]], row: Mapping[str, Any]) -> None:
    counts["tokens"] += row["tokens"] or 0
    counts["cut"] += row["finish"] == "length"
    counts["empty"] += not row["answer"].strip()
    texts.setdefault(row["prompt_id"], set()).add(row["answer"])
