"""How long the job will take: a few real steps on the real cluster, in a run folder that is removed again.

The steps are those that the job begins with. The rest is scaled by tokens, since hard pairs run one answer and not two.
No reference is computed for it: reading stored values takes no time, so a loss without one stands in.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import replace
from typing import Any

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import wait_for_resources
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_workers import fit
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import CheckFailed, Unchecked, counted
from mixdpo_ray.objectives.amapo import AMaPO
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.objectives.step_objective import StepObjective
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import trained_index
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines
from mixdpo_ray.wording import duration_text

TIMED_STEPS = 4  # the first one is slower, and not counted


def duration(examination: Examination) -> str:
    if not examination.probe:
        raise Unchecked("--probe measures a few real steps")
    table, plan = examination.table, examination.plan
    if table is None or plan is None:
        raise Unchecked("there is nothing to train on before jobs/prepare.py")
    folder = storage.join(storage.absolute(examination.recipe.output.storage_path), f".probe-{uuid.uuid4().hex[:12]}")
    began = time.monotonic()
    try:
        lines = _train(examination, shortened(examination.job(table, folder)))
    finally:
        storage.delete(folder)
    seconds = time.monotonic() - began
    measured = lines[1:] or lines
    step = float(np.mean([line["perf/seconds"] for line in measured]))
    speed = float(np.mean([line["perf/tokens_per_second"] for line in measured]))
    total = tokens(table, plan) / speed
    around = seconds - sum(line["perf/seconds"] for line in lines)
    jobs = _jobs(examination.recipe.train.stop_after, total, around, step)
    return (
        f"{_about(total)} for {plan.steps} steps ({step:.2f} s each at the start, {speed:,.0f} tokens/s), and "
        f"{_about(around)} around them{jobs}"
    )


def _jobs(stop_after: float | None, total: float, around: float, step: float) -> str:
    """How many jobs train.stop_after makes of it."""
    if stop_after is None:
        return ""
    left = stop_after - around
    if left < step:
        raise CheckFailed(
            f"train.stop_after {duration_text(stop_after)} leaves no time to train: {_about(around)} go to starting "
            f"and ending, and {step:.2f} s to a step"
        )
    return f"; train.stop_after makes {counted(math.ceil(total / left), 'job')} of it"


def shortened(job: TrainingJob) -> TrainingJob:
    """A few steps, nothing saved and nothing exported."""
    train = job.train.model_copy(
        update={
            "max_steps": min(TIMED_STEPS, job.train.max_steps or TIMED_STEPS),
            "evaluation": job.train.evaluation.model_copy(update={"every_steps": None}),
            "checkpoints": job.train.checkpoints.model_copy(update={"every_steps": None, "keep_best": None}),
        }
    )
    looks = isinstance(job.objective, StepObjective)
    objective = job.objective
    if objective.needs_reference:
        objective = AMaPO() if looks else SimPO()
    hard, curriculum = job.hard_objective, job.curriculum
    if hard is not None and hard.needs_reference:
        curriculum = curriculum.model_copy(update={"hard_objective": SimPO()})
    return replace(job, train=train, objective=objective, curriculum=curriculum, tracked=None).without_export()


def _train(examination: Examination, job: TrainingJob) -> list[dict[str, Any]]:
    run_actor = claim_run(job.run)
    wait_for_resources(examination.recipe.cluster, lambda text: None)
    fit(examination.recipe.cluster, job, run_actor)
    return [line for line in read_lines(storage.join(job.run, STEP_METRICS)) if "perf/seconds" in line]


def tokens(table: PreparedTable, plan: Plan) -> int:
    """That the whole plan runs: both answers of a pair, or the chosen one alone."""
    index = trained_index(table)
    each = index.prompt_length + index.chosen_length
    both = index.prompt_length + index.rejected_length
    windows = (plan.window(step) for step in range(plan.steps))
    return sum(int((each[one.positions] + np.where(one.alone, 0, both[one.positions])).sum()) for one in windows)


def _about(seconds: float) -> str:
    """An estimate, which knows no seconds beside minutes."""
    return duration_text(seconds if seconds < 120 else 60 * round(seconds / 60))
