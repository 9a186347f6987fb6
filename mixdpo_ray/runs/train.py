"""One training run on Ray: prepare what is missing, start the workers, watch them, leave a summary.

Ray Train starts the workers, restarts the group when one dies, and is told of each checkpoint. Which checkpoint is the
newest is decided by the committed folders of the run alone (training/checkpoints.py), never by what Ray remembers.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.cluster.command import import_meanwhile, job_began
from mixdpo_ray.cluster.connect import missing_resources, wait_for_resources
from mixdpo_ray.cluster.events import PhaseBegan
from mixdpo_ray.cluster.model_fetch import fetch_models
from mixdpo_ray.cluster.preflight import preflight, ready_cluster
from mixdpo_ray.cluster.progress import TrainingDisplay, watching
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_record import RunRecord, run_folder
from mixdpo_ray.cluster.run_workers import fit
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.curriculum.routing import doubt_of_threshold
from mixdpo_ray.errors import StoppedError
from mixdpo_ray.preparation.held_out import check_training_metrics
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.checkpoint_judge import CheckpointJudge, checkpoint_judge, last_judgement
from mixdpo_ray.runs.job import make_job
from mixdpo_ray.runs.push import hub_token, push_model
from mixdpo_ray.runs.summary import RunReport
from mixdpo_ray.scoring.reference import reference
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.idle_gradient import IdleGradient
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.judged_steps import join_judgements, steps_judged
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines
from mixdpo_ray.training.run_picture import draw_curves
from mixdpo_ray.training.schedule import check_warmup
from mixdpo_ray.wording import duration_text

CONTINUES = "the same command continues"


def train(recipe: Recipe) -> RunReport:
    """Train as the recipe says, continuing where a killed run stopped."""
    judged = recipe.train.evaluation.judge is not None
    stop_at = None if recipe.train.stop_after is None else job_began() + recipe.train.stop_after
    if recipe.output.push_to_hub is not None:
        hub_token(recipe.output.push_to_hub)  # a missing one shows now, and not after the training
    with ready_cluster(recipe, cpus=recipe.cluster.cpus_for(recipe.cluster.most_workers) + judged):
        report = _train(recipe, prepared_table(recipe), stop_at)
    return push_model(recipe, report)


def _train(recipe: Recipe, table: PreparedTable, stop_at: float | None) -> RunReport:
    """`stop_at`: UNIX time by which the job has ended; what it prepares, scores and waits for counts."""
    record = RunRecord(run_folder(recipe))
    with record.locked():
        recipe = record.as_begun(recipe)
        job = replace(make_job(recipe, table), judge=recipe.train.evaluation.judge)
        plan = job.plan(table)
        check_warmup(plan, recipe.train.schedule)
        steps = job.steps(plan)
        if summary := record.finished(steps):
            summary = _judge_rest(record, job, summary, checkpoint_judge(recipe, job, steps))
            return RunReport(run_folder(recipe), summary, already_finished=True)
        check_training_metrics(recipe, table)
        if steps < plan.steps:
            print(f"warning: {cut_short(steps, plan)}", file=sys.stderr, flush=True)
        if warning := doubt_of_threshold(
            recipe.curriculum, int(np.count_nonzero(plan.hard)), table.index("train").difficulty
        ):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
            job = replace(job, card={**job.card, "note": warning.rpartition(": ")[0]})  # without the advice
        fetch_models(recipe)
        job = replace(job.with_reference(reference(recipe, table, job)), stop_at=stop_at)
        judge = checkpoint_judge(recipe, job, steps)
        run_actor = claim_run(job.run)
        with TrainingDisplay("train", steps) as display:
            _wait_for_room(recipe, display, job)
            began = time.monotonic()
            import_meanwhile("matplotlib.figure")  # for the picture, while this process only waits
            display.show(PhaseBegan("starting the workers"))
            missing = partial(missing_resources, recipe.cluster, to_start=False)
            beside = judge.beside(run_actor) if judge else nullcontext()
            with watching(run_actor, display, missing), beside:
                summary = fit(recipe.cluster, job, run_actor)
        if done := summary.get("stopped"):
            raise StoppedError(f"{_stopped(job)} after step {done} of {steps}, which is saved; {CONTINUES}")
        idle = IdleGradient(read_lines(storage.join(job.run, STEP_METRICS))).warning
        summary = {**summary, "warning": idle, "steps": steps, "seconds": round(time.monotonic() - began, 1)}
        draw_curves(job.run)
        record.write_summary(summary)
        return RunReport(run_folder(recipe), _judge_rest(record, job, summary, judge))


def _wait_for_room(recipe: Recipe, display: TrainingDisplay, job: TrainingJob) -> None:
    def wait(text: str) -> None:
        refuse_too_late(job)
        display.show(PhaseBegan(text))

    wait("looking for room")
    if wait_for_resources(recipe.cluster, wait):
        preflight(recipe)  # of the nodes that came


def _judge_rest(
    record: RunRecord, job: TrainingJob, summary: dict[str, Any], judge: CheckpointJudge | None
) -> dict[str, Any]:
    """The summary with what the judge says of the trained model, after all that was left to judge."""
    if judge is None:
        return summary
    judge.rest()
    join_judgements(job.run, steps_judged(job.run))
    draw_curves(job.run)
    summary = {**summary, **last_judgement(job, judge.steps)}
    record.write_summary(summary)
    return summary


def refuse_too_late(job: TrainingJob) -> None:
    """What is prepared and scored by then is kept, but no step would have the time."""
    if job.stop_at is not None and time.time() >= job.stop_at:
        raise StoppedError(f"{_stopped(job)} before its workers could start; {CONTINUES}")


def _stopped(job: TrainingJob) -> str:
    return f"stopped by train.stop_after ({duration_text(job.train.stop_after or 0)})"


def cut_short(steps: int, plan: Plan) -> str:
    """What train.max_steps leaves out."""
    stages = [plan.window(step).stage for step in range(plan.steps)]
    missed = [f"of the {stage} stage nothing" for stage in dict.fromkeys(stages) if stage not in stages[:steps]]
    return (
        f"train.max_steps ends the curriculum after {steps} of {plan.steps} steps"
        f"{''.join(f'; {one} is trained' for one in missed)}: curriculum.thin=2 trains all kinds in half the steps"
    )
