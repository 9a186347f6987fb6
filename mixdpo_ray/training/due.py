"""What is due after so many steps: an evaluation, and a checkpoint with the reason for it."""

from __future__ import annotations

from dataclasses import dataclass

from mixdpo_ray.training.job import TrainingJob


@dataclass(frozen=True)
class DueCheckpoint:
    evaluated: bool  # by the settings of checkpoints: with the metrics of the last evaluation
    why: str | None  # where it is not by them alone
    waits: bool  # until it counts


def is_due(done: int, steps: int, every: int | None) -> bool:
    return done == steps or (every is not None and done % every == 0)


def evaluation_due(job: TrainingJob, done: int, steps: int) -> bool:
    """The best checkpoint is found by what was measured at each."""
    saves = job.train.checkpoints
    for_best = saves.keep_best is not None and is_due(done, steps, saves.every_steps)
    return for_best or is_due(done, steps, job.train.evaluation.every_steps)


def checkpoint_due(
    job: TrainingJob, done: int, steps: int, *, wanted: str | None, refreshes: bool
) -> DueCheckpoint | None:
    """`wanted`: why whoever listens wants one, and may end this process at any moment. `refreshes`: the reference."""
    if done == steps and not (job.exports_model or job.keeps_state):
        return None
    why = wanted
    if job.judge is not None and is_due(done, steps, job.judge.every_steps):
        why = why or "to be judged"
    if refreshes:
        why = why or "its model becomes the reference"
    due = is_due(done, steps, job.train.checkpoints.every_steps)
    return DueCheckpoint(due, why, waits=wanted is not None or done == steps) if due or why else None
