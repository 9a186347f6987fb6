"""What lies under output.storage_path, who uses it, and what could go.

A prepared table is used by the runs and studies whose recipe.json names its content and no other files, a reference
table by those with its model, scores by those whose recipe names their metric, a checkpoint by its run until that has
finished, exported its model and let the checkpoint answer what its judge asks. Paths that may lead to one folder count
as one. What a live process holds the lock of stays. Answers, ratings, verdicts, what was made of them, and the models
that are put together of checkpoints are read by people and by recipes that are noted nowhere here: they are listed, and
never removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.folder_lock import UNFINISHED, FolderLock
from mixdpo_ray.cluster.run_record import RecordedRecipe, RunRecord
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.preparation.table_key import read_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.storage_items import Item, describe_items, item_at, remove_unused, too_young
from mixdpo_ray.tables.answer_table import SAMPLES_FOLDER
from mixdpo_ray.tables.keyed_table import PASSES, RATED_FOLDER, SCORES
from mixdpo_ray.tables.prepared_table import MANIFEST, Manifest, PreparedTable
from mixdpo_ray.training.checkpoints import committed_steps
from mixdpo_ray.training.judged_steps import waits_for_judge
from mixdpo_ray.training.settings import CheckpointJudgeSettings

USERS = {"runs": "run", "studies": "study", "comparisons": "comparison"}
_KEPT = {
    "judged": "what a judge replied",
    "evaluations": "evaluation",
    "tasks": "figures of a model on downstream tasks",
    "iterations": "rounds, with their models",
    "published": "pairs as a data set",
}
ASKERS = ("recipes that are not noted here, so only you can remove it",)


@dataclass(frozen=True)
class RunItem:
    """A run, a study or a comparison: the last two have claims on tables, and no checkpoints of their own."""

    name: str
    kind: str  # the folder that it lies in
    record: RunRecord
    asked: RecordedRecipe

    @property
    def finished(self) -> bool:
        exported = any(storage.exists(folder) for folder in (self.record.model, self.record.adapter))
        return self.record.summary() is not None and exported

    @property
    def judge(self) -> CheckpointJudgeSettings | None:
        """Who looks at its checkpoints, which stay until they have answered."""
        settings = self.asked.recipe.get("train", {}).get("evaluation", {}).get("judge")
        return None if settings is None else CheckpointJudgeSettings.model_validate(settings)


@dataclass(frozen=True)
class StorageReport:
    items: Sequence[Item]
    removed: Sequence[Item] | None = None  # of those that nothing uses, where they were to be removed

    def describe(self) -> str:
        found = describe_items(self.items)
        if self.removed is None:
            return f"{found}; --remove deletes them" if any(item.unused for item in self.items) else found
        held = sum(item.unused for item in self.items) - len(self.removed)
        return f"{found}\nremoved {len(self.removed)}" + (f"; {held} are locked by a running process" if held else "")


def clean(recipe: Recipe, *, remove: bool = False) -> StorageReport:
    """List what lies under output.storage_path; with `remove`, delete what nothing uses. Ray is not needed."""
    items = survey_storage(recipe.output.storage_path)
    return StorageReport(items, remove_unused(items) if remove else None)


def survey_storage(storage_path: str) -> list[Item]:
    runs, comparisons = find_runs(storage_path, "runs"), find_runs(storage_path, "comparisons")
    users = [*runs, *find_runs(storage_path, "studies"), *comparisons]
    return [
        *_prepared(storage.join(storage_path, "prepared"), users),
        *_references(storage.join(storage_path, "reference"), users),
        *_scores(storage.join(storage_path, SCORES), users),
        *_answers(storage.join(storage_path, SAMPLES_FOLDER), "answers"),
        *_answers(storage.join(storage_path, RATED_FOLDER), "ratings"),
        *_kept(storage_path),
        *_left_by_passes(storage.join(storage_path, PASSES)),
        *(item for run in [*runs, *comparisons] for item in _of_run(run)),
    ]


def find_runs(storage_path: str, kind: str) -> list[RunItem]:
    folder = storage.join(storage_path, kind)
    runs = []
    for name in storage.names(folder):
        record = RunRecord(storage.join(folder, name))
        if (asked := record.recorded()) is not None:
            runs.append(RunItem(f"{USERS[kind]} {name}", kind, record, asked))
    return runs


def _prepared(folder: str, runs: list[RunItem]) -> Iterator[Item]:
    names = storage.names(folder)
    tables = {
        name: PreparedTable.open(storage.join(folder, name)).manifest
        for name in names
        if PreparedTable.committed(storage.join(folder, name)) and not name.startswith(UNFINISHED)
    }
    users = {
        name: tuple(
            run.name
            for run in runs
            if manifest.content_digest in run.asked.prepared and _may_read(run, storage.join(folder, name))
        )
        for name, manifest in tables.items()
    }
    for name in names:
        path = storage.join(folder, name)
        if name in tables:
            # another metric or selection is derived from the base again: without it everything is tokenised anew
            derived = [other for other in tables if name in _bases(tables, other)]
            using = dict.fromkeys([*users[name], *(user for other in derived for user in users[other])])
            yield item_at(path, "prepared table", tuple(using), FolderLock(path))
        elif name.endswith(QUARANTINE):
            yield item_at(path, "refused rows of a preparation that stopped")
        elif not name.endswith(".lock"):
            table = storage.join(folder, name.removeprefix(UNFINISHED))
            yield item_at(path, "unfinished prepared table", too_young(path), FolderLock(table))


def _bases(tables: dict[str, Manifest], name: str) -> list[str]:
    """The tables that one was made of: what is derived from a curated one has two of them."""
    found: list[str] = []
    while (base := tables[name].facts.get("base")) in tables and base not in found:
        found.append(name := base)
    return found


def _references(folder: str, runs: list[RunItem]) -> Iterator[Item]:
    for name in _tables(folder):
        path = storage.join(folder, name)
        if (facts := _facts(path)) is None:
            yield item_at(path, "unfinished reference table", too_young(path), FolderLock(path))
            continue
        model = facts.get("model", {})
        users = tuple(run.name for run in runs if any(_same_weights(model, one) for one in run.asked.models))
        metrics = tuple(run.name for run in runs if run.name not in users and _mentions(run, model.get("path")))
        yield item_at(path, "reference table", (*users, *metrics), FolderLock(path))


def _scores(folder: str, runs: list[RunItem]) -> Iterator[Item]:
    """Scores, used by runs that order or select by their metric, or whose recipe describes it: in doubt they are."""
    for name in _tables(folder):
        path = storage.join(folder, name)
        if name.endswith(".png"):
            yield item_at(path, "picture of rank correlations")
        elif (facts := _facts(path)) is None:
            yield item_at(path, "unfinished table of scores", too_young(path), FolderLock(path))
        else:
            metric = facts.get("metric")
            users = tuple(run.name for run in runs if _mentions(run, metric))
            yield item_at(path, f"scores: {metric}", users, FolderLock(path))


def _answers(folder: str, what: str) -> Iterator[Item]:
    """Tables of answers or of their ratings, and the files that were written of them."""
    for name in _tables(folder):
        path = storage.join(folder, name)
        if (facts := _facts(path)) is not None:
            yield item_at(path, f"{what} of {facts.get('model')}", ASKERS)
        elif name.endswith(QUARANTINE):
            yield item_at(path, "refused prompts")
        else:
            yield item_at(path, f"{what} written out", ASKERS)


def _kept(storage_path: str) -> Iterator[Item]:
    """What people read, and verdicts that were paid."""
    for kind, about in _KEPT.items():
        folder = storage.join(storage_path, kind)
        for name in _tables(folder):
            yield item_at(storage.join(folder, name), about, ASKERS)


def _left_by_passes(folder: str) -> Iterator[Item]:
    for name in storage.names(folder):
        path = storage.join(folder, name)
        yield item_at(path, "left by a killed pass of a model in shards", too_young(path))


def _facts(table: str) -> dict[str, Any] | None:
    """What a table's manifest says of it; None where there is none."""
    manifest = storage.join(table, MANIFEST)
    return json.loads(storage.read_bytes(manifest))["facts"] if storage.exists(manifest) else None


def _tables(folder: str) -> list[str]:
    return [name for name in storage.names(folder) if not name.endswith(".lock")]


def _mentions(run: RunItem, name: object) -> bool:
    """Whether the name stands anywhere in the run's recipe, as a setting or as a value."""

    def found(content: object) -> bool:
        if isinstance(content, dict):
            return name in content or any(map(found, content.values()))
        if isinstance(content, list):
            return any(map(found, content))
        return content == name or (
            isinstance(content, str) and isinstance(name, str) and storage.may_be_one(content, name)
        )

    named = ("metrics", "curriculum", "data", "compare")
    sections = {key: value for key, value in run.asked.recipe.items() if key in named}
    return name is not None and found(sections)


def _may_read(run: RunItem, table: str) -> bool:
    """Whether a run may have read the files that a table was made of: the same rows may lie in two files."""
    if run.kind != "runs":
        return True
    mine, its = (_source_paths(recipe) for recipe in (run.asked.recipe, read_recipe(table)))
    return not mine or not its or (len(mine) == len(its) and all(map(storage.may_be_one, mine, its)))


def _source_paths(recipe: dict[str, Any]) -> list[str]:
    path = recipe.get("data", {}).get("source", {}).get("path") or []
    return [path] if isinstance(path, str) else list(path)


def _same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Coarser than what names a reference table: in doubt it is used."""
    paths = [str(model.get("reference") or model.get("path")) for model in (one, other)]
    return storage.may_be_one(*paths) and one.get("revision") == other.get("revision")


def _of_run(run: RunItem) -> Iterator[Item]:
    folder, lock = run.record.checkpoints, run.record.lock
    finished, waits = run.finished, waits_for_judge(run.record.folder, run.judge)
    committed = {f"step-{step}" for step in committed_steps(folder)}
    for name in storage.names(folder):
        path = storage.join(folder, name)
        if name not in committed:
            yield item_at(path, "unfinished or damaged checkpoint", too_young(path), lock)
        elif finished and not waits(int(name.removeprefix("step-"))):
            yield item_at(path, "checkpoint of a finished run, whose model is exported", (), lock)
        else:
            yield item_at(path, "checkpoint", (run.name,), lock)
    for name in _tables(folder := run.record.exported):
        path = storage.join(folder, name)
        if storage.exists(storage.join(path, "config.json")) and not name.startswith(UNFINISHED):
            yield item_at(path, "model of a checkpoint", ASKERS)
        else:
            step = FolderLock(storage.join(folder, name.removeprefix(UNFINISHED)))
            yield item_at(path, "unfinished model of a checkpoint", too_young(path), step)
    if storage.exists(scratch := run.record.scratch):
        yield item_at(scratch, "Ray's notes on an attempt that was killed", too_young(scratch), lock)
