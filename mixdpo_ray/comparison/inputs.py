"""What the arms of a comparison share, made or looked up before the first of them: tables, references, first stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.model_fetch import fetch_models
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_record import RunRecord, identity_of
from mixdpo_ray.comparison.arms import Arm, all_arms
from mixdpo_ray.comparison.job_sequence import RecordedJob
from mixdpo_ray.comparison.judged_arms import JudgingOfArms, both_judges, is_judged, judging_of
from mixdpo_ray.comparison.playgrounds import judge_of
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.preparation.held_out import require_held_out
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.scoring.reference import reference
from mixdpo_ray.storage import join
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.first_stage import first_stage, stage_job
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.schedule import check_warmup


@dataclass(frozen=True)
class Entry:
    """An arm with a seed, ready to be trained."""

    arm: Arm
    table: PreparedTable
    job: TrainingJob


@dataclass(frozen=True)
class Unit:
    """Jobs that follow each other: a shared first stage and the arms that begin with it, or one arm."""

    cluster: ClusterSettings
    jobs: tuple[RecordedJob, ...]
    arms: tuple[Arm, ...]
    digests: tuple[str, ...]  # of the prepared tables

    @property
    def left(self) -> Unit:
        """The unit without what has ended, and without a stage that nobody waits for."""
        left = [job for job in self.jobs if not job.ended]
        if all(job.keeps_state for job in left):
            left = []
        return replace(self, jobs=tuple(left))

    @property
    def steps(self) -> int:
        return sum(job.steps for job in self.jobs)

    def forget_stage(self) -> None:
        """Its state, once every arm has ended; its metrics stay."""
        if not self.left.jobs:
            for job in self.jobs:
                storage.delete(job.record.checkpoints)


def make_units(recipe: Recipe, folder: str, judging: JudgingOfArms) -> list[Unit]:
    """`judging`: is filled with what is asked of the arms' models, where the metric is of a judge."""
    tables: dict[str, PreparedTable] = {}
    entries = [_entry(arm, tables, folder) for arm in all_arms(recipe)]
    for one in {entry.arm.recipe.model.model_dump_json(): entry.arm.recipe for entry in entries}.values():
        fetch_models(one)
    entries = _with_references(entries)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        stage = first_stage(entry.job, entry.table, join(folder, "stages"))
        groups.setdefault(f"{stage.run} {entry.arm.recipe.cluster.model_dump_json()}", []).append(entry)
    return [_unit(group, folder, judging) for group in groups.values()]


def _entry(arm: Arm, tables: dict[str, PreparedTable], folder: str) -> Entry:
    recipe = arm.recipe
    if _leaves_model(recipe) and recipe.model.lora is not None and recipe.model.lora.export == "adapter":
        raise RecipeError(
            f"compare.arms.{arm.name}: what it writes is judged by whole models, and model.lora.export adapter leaves "
            "none: set it to both"
        )
    key = _table_key(recipe)
    if key not in tables:
        say(f"{recipe.output.name}: table {len(tables) + 1}, for {arm.label}")
        tables[key] = prepared_table(recipe, described=False)  # of dozens of tables nobody reads what is told of one
        if recipe.compare.measure.name.startswith("eval_"):
            require_held_out(recipe, tables[key], {"compare.metric": recipe.compare.measure.name})
    table, run = tables[key], join(folder, arm.folder)
    try:
        identity = identity_of(recipe, table.manifest.content_digest)
        job = job_in(run, recipe, table, RunRecord(run).claim(recipe, identity, "give the arm another name"))
        check_warmup(job.plan(table), recipe.train.schedule)
    except RecipeError as error:
        raise RecipeError(f"compare.arms.{arm.name}: {error}") from None
    job = job.in_group(recipe.output.name, arm.label, arm.labels)
    return Entry(arm, table, job if _leaves_model(recipe) else job.without_export())


def _leaves_model(recipe: Recipe) -> bool:
    return recipe.compare.keep_models or recipe.compare.playground is not None or is_judged(recipe)


def _table_key(recipe: Recipe) -> str:
    """Coarser than the table's own name, and known without reading anything."""
    later = ("curriculum", "objective", "train", "deepspeed", "cluster", "tune", "compare", "output")
    return fingerprint(
        {
            **{section: content for section, content in recipe.to_dict().items() if section not in later},
            "order": recipe.curriculum.order_identity,
            "batch": recipe.train.global_batch_size,
        }
    )


def _with_references(entries: Sequence[Entry]) -> list[Entry]:
    """Whoever needs most comes first: the others then find what they need, and no model is loaded for them."""
    folders: dict[str, str | None] = {}
    told: set[str | None] = set()
    for entry in sorted(entries, key=_pairs_of_reference, reverse=True):
        recipe, first = entry.arm.recipe, entry.table.folder not in told
        folders[entry.job.run] = reference(recipe, entry.table, entry.job, reuse_told=first)
        told.add(entry.table.folder)
    return [replace(entry, job=entry.job.with_reference(folders[entry.job.run])) for entry in entries]


def _pairs_of_reference(entry: Entry) -> int:
    return int(np.count_nonzero(entry.job.reference_positions(entry.job.plan(entry.table))))


def _unit(group: Sequence[Entry], folder: str, known: JudgingOfArms) -> Unit:
    first = group[0]
    digests = tuple(entry.table.manifest.content_digest for entry in group)
    jobs: list[RecordedJob] = []
    stage = None
    if len(group) > 1:
        stage = first_stage(first.job, first.table, join(folder, "stages"))
        label = f"first stage of {len(group)} arms, seed {first.arm.seed}"
        jobs.append(RecordedJob(QueuedJob(stage_job(first.job, stage), label), stage.step))
    for entry in group:
        recipe, job = entry.arm.recipe, entry.job
        steps = job.steps(job.plan(entry.table)) - (stage.step if stage else 0)
        judging = judging_of(recipe, known)
        leave_answers = judging.prompts.left_by(job.run) if judging else None
        judge = both_judges(judge_of(recipe, entry.arm.seed), leave_answers)
        queued = QueuedJob(replace(job, start_from=stage), entry.arm.label, judge)
        jobs.append(RecordedJob(queued, steps, recipe.compare.keep_models))
    return Unit(first.arm.recipe.cluster, tuple(jobs), tuple(entry.arm for entry in group), digests)
