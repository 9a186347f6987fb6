"""Short trainings whose models score pairs: one after the other by one group of workers, with nothing left out."""

from __future__ import annotations

from collections.abc import Mapping

from mixdpo_ray.cluster.connect import missing_resources, wait_for_resources
from mixdpo_ray.cluster.events import PhaseBegan
from mixdpo_ray.cluster.progress import DisplayInTurn, watching
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.cluster.run_workers import fit_in_turn
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.schedule import check_warmup
from mixdpo_ray.training.settings import CheckpointSettings, EvaluationSettings, TrainSettings


def short_training(
    train: TrainSettings, learning_rate: float, num_train_epochs: int, global_batch_size: int | None, seed: int
) -> TrainSettings:
    """The recipe's training with these settings, without evaluations, and with one checkpoint kept."""
    return train.model_copy(
        update={
            "optimizer": train.optimizer.model_copy(update={"learning_rate": learning_rate}),
            "num_train_epochs": num_train_epochs,
            "global_batch_size": global_batch_size or train.global_batch_size,
            "seed": seed,
            "max_steps": None,
            "stop_after": None,
            "evaluation": EvaluationSettings(per_device_eval_batch_size=train.evaluation.per_device_eval_batch_size),
            "checkpoints": CheckpointSettings(every_steps=train.checkpoints.every_steps, keep_last=1),
        }
    )


def train_models(cluster: ClusterSettings, jobs: Mapping[str, TrainingJob], table: PreparedTable) -> None:
    """Train them all, by their titles, and leave a summary in the folder of each."""
    if not jobs:
        return
    steps = {}
    for title, job in jobs.items():
        plan = job.plan(table)
        check_warmup(plan, job.train.schedule)
        steps[title] = plan.steps
    run_actors = [claim_run(job.run) for job in jobs.values()]  # all of them: each is a lock inside the cluster
    queued = [QueuedJob(job, title) for title, job in jobs.items()]
    with DisplayInTurn(steps) as display:
        wait_for_resources(cluster, lambda text: display.show(PhaseBegan(text)))
        with watching(run_actors[0], display, lambda: missing_resources(cluster, to_start=False)):
            summaries = fit_in_turn(cluster, queued, queued[0].job.run, run_actors[0])
    for job, summary in zip(jobs.values(), summaries, strict=True):
        RunRecord(job.run).write_summary(summary)
