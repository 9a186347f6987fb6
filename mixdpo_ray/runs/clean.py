"""What lies under output.storage_path, who uses it, and what could go.

A prepared table is used by the runs and studies whose recipe.json names its content and no other files, a reference
table by those with its model, scores by those whose recipe names their metric, a checkpoint by its run until that has
finished and exported its model. Paths that may lead to one folder count as one. What a live process holds the lock of
stays. Answers, and the models that are put together of checkpoints to draw them, are read by recipes that are
noted nowhere here: they are listed, and never removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.fs as pafs

from mixdpo_ray import storage
from mixdpo_ray.cluster.folder_lock import UNFINISHED, FolderLock
from mixdpo_ray.cluster.run_record import RecordedRecipe, RunRecord
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.preparation.table_key import read_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.answer_table import SAMPLES_FOLDER
from mixdpo_ray.tables.keyed_table import RATED_FOLDER, SCORES
from mixdpo_ray.tables.prepared_table import MANIFEST, PreparedTable
from mixdpo_ray.training.checkpoints import committed_steps
from mixdpo_ray.wording import size_text

USERS = {"runs": "run", "studies": "study", "comparisons": "comparison"}
ASKERS = ("recipes that are not noted here, so only you can remove it",)
USERS_TOLD = 3  # of those who use a table
OLD = timedelta(days=1)  # object stores have no locks: what is younger may still be being written


@dataclass(frozen=True)
class Item:
    path: str
    bytes: int
    about: str
    used_by: tuple[str, ...] = ()
    lock: FolderLock | None = None  # held by whoever is writing it
    file: bool = False  # and no folder

    @property
    def unused(self) -> bool:
        return not self.used_by


@dataclass(frozen=True)
class RunItem:
    """A run, a study or a comparison: the last two have claims on tables, and no checkpoints of their own."""

    name: str
    kind: str  # the folder that it lies in
    record: RunRecord
    asked: RecordedRecipe

    @property
    def finished(self) -> bool:
        return self.record.summary() is not None and storage.exists(self.record.model)


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


def remove_unused(items: Sequence[Item]) -> list[Item]:
    """Those of the items that were removed: unused, and locked by nobody."""
    removed = []
    for item in items:
        if not item.unused:
            continue
        with nullcontext(True) if item.lock is None else item.lock.if_free() as free:
            if free:
                storage.delete(item.path)
                removed.append(item)
    return removed


def describe_items(items: Sequence[Item]) -> str:
    lines = [
        f"{size_text(item.bytes):>10}  {item.path}  {item.about}; used by {_some(item.used_by) or 'nothing'}"
        for item in sorted(items, key=lambda item: (item.unused, -item.bytes))
    ]
    unused = [item for item in items if item.unused]
    if not unused:
        return "\n".join([*lines, "everything is used" if lines else "nothing is there"])
    counts = ((sum(item.file == kind for item in unused), word) for kind, word in ((False, "folder"), (True, "file")))
    found = " and ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count)
    return "\n".join([*lines, f"used by nothing: {found}, {size_text(sum(item.bytes for item in unused))}"])


def _some(names: Sequence[str]) -> str:
    """The first few of many."""
    more = len(names) - USERS_TOLD
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:USERS_TOLD])} and {more} more"


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
            derived = [other for other, manifest in tables.items() if manifest.facts.get("base") == name]
            using = dict.fromkeys([*users[name], *(user for other in derived for user in users[other])])
            yield _item(path, "prepared table", tuple(using), FolderLock(path))
        elif name.endswith(QUARANTINE):
            yield _item(path, "refused rows of a preparation that stopped")
        elif not name.endswith(".lock"):
            table = storage.join(folder, name.removeprefix(UNFINISHED))
            yield _item(path, "unfinished prepared table", _too_young(path), FolderLock(table))


def _references(folder: str, runs: list[RunItem]) -> Iterator[Item]:
    for name in _tables(folder):
        path = storage.join(folder, name)
        if (facts := _facts(path)) is None:
            yield _item(path, "unfinished reference table", _too_young(path), FolderLock(path))
            continue
        model = facts.get("model", {})
        users = tuple(run.name for run in runs if any(_same_weights(model, one) for one in run.asked.models))
        metrics = tuple(run.name for run in runs if run.name not in users and _mentions(run, model.get("path")))
        yield _item(path, "reference table", (*users, *metrics), FolderLock(path))


def _scores(folder: str, runs: list[RunItem]) -> Iterator[Item]:
    """Scores, used by runs that order or select by their metric, or whose recipe describes it: in doubt they are."""
    for name in _tables(folder):
        path = storage.join(folder, name)
        if name.endswith(".png"):
            yield _item(path, "picture of rank correlations")
        elif (facts := _facts(path)) is None:
            yield _item(path, "unfinished table of scores", _too_young(path), FolderLock(path))
        else:
            metric = facts.get("metric")
            users = tuple(run.name for run in runs if _mentions(run, metric))
            yield _item(path, f"scores: {metric}", users, FolderLock(path))


def _answers(folder: str, what: str) -> Iterator[Item]:
    """Tables of answers or of their ratings, and the files that were written of them."""
    for name in _tables(folder):
        path = storage.join(folder, name)
        if (facts := _facts(path)) is not None:
            yield _item(path, f"{what} of {facts.get('model')}", ASKERS)
        elif name.endswith(QUARANTINE):
            yield _item(path, "refused prompts")
        else:
            yield _item(path, f"{what} written out", ASKERS)


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
    finished = run.finished
    committed = {f"step-{step}" for step in committed_steps(folder)}
    for name in storage.names(folder):
        path = storage.join(folder, name)
        if name not in committed:
            yield _item(path, "unfinished or damaged checkpoint", _too_young(path), lock)
        elif finished:
            yield _item(path, "checkpoint of a finished run, whose model is exported", (), lock)
        else:
            yield _item(path, "checkpoint", (run.name,), lock)
    for name in _tables(folder := run.record.exported):
        path = storage.join(folder, name)
        if storage.exists(storage.join(path, "config.json")) and not name.startswith(UNFINISHED):
            yield _item(path, "model of a checkpoint", ASKERS)
        else:
            step = FolderLock(storage.join(folder, name.removeprefix(UNFINISHED)))
            yield _item(path, "unfinished model of a checkpoint", _too_young(path), step)
    if storage.exists(scratch := run.record.scratch):
        yield _item(scratch, "Ray's notes on an attempt that was killed", _too_young(scratch), lock)


def _item(path: str, about: str, used_by: tuple[str, ...] = (), lock: FolderLock | None = None) -> Item:
    files = _files(path)
    file = [info.path for info in files] == [storage.open_filesystem(path)[1]]
    return Item(path, sum(info.size or 0 for info in files), about, used_by, lock, file)


def _too_young(path: str) -> tuple[str, ...]:
    """Name who may still be writing: where there is no lock to look at, time tells."""
    if storage.is_local(path):
        return ()
    newest = max((info.mtime for info in _files(path) if info.mtime), default=None)
    young = newest is not None and datetime.now(UTC) - newest < OLD
    return ("whoever wrote it less than a day ago",) if young else ()


def _files(path: str) -> list[pafs.FileInfo]:
    filesystem, inner = storage.open_filesystem(path)
    with storage.explained(path):
        itself = filesystem.get_file_info(inner)
        if itself.type == pafs.FileType.File:
            return [itself]
        found = filesystem.get_file_info(pafs.FileSelector(inner, recursive=True, allow_not_found=True))
    return [info for info in found if info.type == pafs.FileType.File]
