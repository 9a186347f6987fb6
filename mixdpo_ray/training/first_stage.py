"""The first stage of a run, trained once for every run that is identical up to the switch.

A checkpoint belongs to one training, by its fingerprint. Here it is handed on deliberately: a stage has a fingerprint
of its own, of everything that its steps depend on, and a run whose first stage has the same may begin where it ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.errors import CheckpointError
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.checkpoints import Checkpoints, FoundCheckpoint
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE
from mixdpo_ray.training.job import StartFrom, TrainingJob
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines, write_lines
from mixdpo_ray.training.schedule import learning_rate
from mixdpo_ray.training.settings import BUCKETS

# what changes no step; learning rates and windows are compared one by one
_ASIDE = {"checkpoints", "max_steps", "num_train_epochs", "schedule", "stop_after"}


def first_stage(job: TrainingJob, table: PreparedTable, run: str) -> StartFrom:
    """Up to the first step of the second stage, or the whole run. `run`: the folder that stages are kept in."""
    plan = job.plan(table)
    steps = plan.window(0).phase_steps
    name = _fingerprint(job, table, plan, steps)
    return StartFrom(storage.join(run, name), name, steps)


def stage_job(job: TrainingJob, stage: StartFrom) -> TrainingJob:
    """The job that trains this stage of a job and leaves its state."""
    train = job.train.model_copy(update={"max_steps": stage.step})
    return replace(  # who adopts its lines shows them
        job, train=train, run=stage.run, fingerprint=stage.fingerprint, exports_model=False, keeps_state=True,
        tracked=None,
    )  # fmt: skip


def adopt(job: TrainingJob, plan: Plan, checkpoints: Checkpoints) -> FoundCheckpoint:
    """Collective. The state that the job begins with, and the lines of metrics that led there."""
    start_from = job.start_from
    assert start_from is not None, "only a job that begins where another ended adopts its state"
    folder = storage.join(start_from.run, "checkpoints")
    found = replace(checkpoints, folder=folder, fingerprint=start_from.fingerprint).find()
    if found is None or found.manifest.step != start_from.step:
        raise CheckpointError(
            f"{folder} does not hold step-{start_from.step}, with which {job.run} begins: train it first"
        )
    if checkpoints.world.leads:
        steps, every = job.steps(plan), job.train.evaluation.every_steps
        lines = list(read_lines(storage.join(start_from.run, STEP_METRICS)))
        if start_from.step < steps and (every is None or start_from.step % every):
            lines = [line for line in lines if line.get("kind") != "eval" or line["step"] < start_from.step]
        for line in lines:
            if "epoch" in line:  # as a share of this run, which may be longer
                line["epoch"] = job.train.num_train_epochs * (line["step"] + 1) / plan.steps
        write_lines(storage.join(job.run, STEP_METRICS), lines)
        for name in (BEFORE, AFTER) if start_from.step == steps else (BEFORE,):
            if storage.exists(storage.join(start_from.run, name)):
                storage.copy(storage.join(start_from.run, name), storage.join(job.run, name))
    return found


def _fingerprint(job: TrainingJob, table: PreparedTable, plan: Plan, steps: int) -> str:
    sha = hashlib.sha256()
    for part in _parts(job, table, plan, steps):
        sha.update(part)
    return sha.hexdigest()[:16]


def _parts(job: TrainingJob, table: PreparedTable, plan: Plan, steps: int) -> Iterator[bytes]:
    """Everything that a step, or the evaluation after it, depends on."""
    settings = {
        "model": job.model.identity(),
        "objective": [type(job.objective).__name__, job.objective.model_dump(mode="json")],
        "train": job.train.identity(_ASIDE),
        "deepspeed": {**job.deepspeed.model_dump(mode="json", exclude={"sequence_parallel"}), **BUCKETS},
        "prepared": table.manifest.content_digest,
        "reference": job.reference,
    }
    yield json.dumps(settings, sort_keys=True).encode()
    yield np.packbits(plan.hard).tobytes()
    if refreshed := [step for step in job.refresh_steps(plan) if step < steps]:
        yield f"refreshed {refreshed}".encode()
    for step in range(steps):
        window = plan.window(step)
        yield f"{window.stage} {learning_rate(window, plan, job.train)!r}".encode()
        yield window.positions.astype(np.int64).tobytes()
        if window.alone.any():
            yield f"{job.curriculum.sft_normalisation} {job.curriculum.sft_weight}".encode()
        if job.hard_objective is not None and (window.hard & ~window.alone).any():
            yield f"{type(job.hard_objective).__name__} {job.hard_objective.model_dump_json()}".encode()
