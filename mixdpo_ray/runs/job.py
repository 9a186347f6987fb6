"""A recipe and its prepared table as the job that workers run."""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.run_record import RunRecord, identity_of, run_folder
from mixdpo_ray.curation.report import noise_rate
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tracking.tracked import Tracked
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.model_files import with_absolute_paths


def make_job(recipe: Recipe, table: PreparedTable) -> TrainingJob:
    record = RunRecord(run_folder(recipe))
    if recipe.output.fresh:
        delete_and_say(record.folder)
    fingerprint = record.claim(recipe, identity_of(recipe, table.manifest.content_digest))
    return job_in(storage.absolute(record.folder), recipe, table, fingerprint)


def delete_and_say(folder: str) -> None:
    """Delete what output.fresh asks to, and say it where there was anything."""
    if storage.exists(folder):
        storage.delete(folder)
        say(f"deleted {folder} (output.fresh)")


def job_in(run: str, recipe: Recipe, table: PreparedTable, fingerprint: str) -> TrainingJob:
    return TrainingJob(
        model=with_absolute_paths(recipe.model),
        curriculum=recipe.curriculum,
        objective=recipe.objective.with_noise_rate(noise_rate(table)),
        train=recipe.train,
        deepspeed=recipe.deepspeed,
        prepared=storage.absolute(table.folder),
        reference=None,
        run=run,
        fingerprint=fingerprint,
        card={"recipe": recipe.to_dict(), "data": table.manifest.model_dump(mode="json")},
        tracked=Tracked(recipe.output.trackers, recipe.output.name, recipe.to_dict()),
    )
