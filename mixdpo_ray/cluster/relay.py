"""Many small trainings, one after the other, by one group of workers.

To start a group costs more than a small training does: 10 s and more for processes, process group and imports, against
4 or 5 s of steps. Each training has a folder of its own and continues there; one that has ended is passed over, so a
group that was started again, or a command that was repeated, trains only what is left.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.fit import Listener, run_group, stopping_for_good, take_place, train_here
from mixdpo_ray.cluster.run_folder import FAILURE, SUMMARY
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.playground.build import WorldFolder
from mixdpo_ray.playground.score import score
from mixdpo_ray.storage import join
from mixdpo_ray.training.checkpoints import committed_steps
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.world import World


@dataclass(frozen=True)
class Task:
    label: str
    job: TrainingJob
    steps: int
    world: WorldFolder | None = None  # where the exported model is judged
    answers_each: int = 1
    keeps_model: bool = False

    @property
    def ended(self) -> bool:
        """A stage has not while somebody wants the state that it left, and it was cleared away."""
        run = self.job.run
        if storage.exists(join(run, FAILURE)):
            return True
        there = not self.job.leaves_state or committed_steps(join(run, "checkpoints"))
        return bool(there) and storage.exists(join(run, SUMMARY))


def run_in_turn(cluster: ClusterSettings, tasks: Sequence[Task], run: str, board: Any) -> None:
    """`run`: a folder for what Ray keeps of the group."""
    run_group(_worker, {"tasks": tasks}, cluster, run, board)


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    with stopping_for_good(config) as stopped:
        if not stopped:
            world = take_place(config)
            for task in config["tasks"]:
                # every rank sees the same: a task ends by what all of them do together
                if not task.ended:
                    _run(config, task, world)
                    gc.collect()  # an engine refers to itself, and the next one needs the room
    return {}


def _run(config: Mapping[str, Any], task: Task, world: World) -> None:
    job, board = task.job, config["board"]
    if job.beginning is not None and (failed := failure(job.beginning.run)):
        _leave(task, world, board, FAILURE, failed)
        return
    began = time.monotonic()
    try:
        summary = train_here(config, job, world, TaskListener(board, task.label))
    except NonFiniteError as error:  # of sums over all ranks, so that all of them are here
        _leave(task, world, board, FAILURE, " ".join(str(error).split()))
        return
    if world.leads:
        trained = time.monotonic()
        if task.world is not None and summary["model"] is not None:
            summary["judged"] = score(task.world, Path(summary["model"]), task.answers_each)
        summary |= {"seconds": round(trained - began, 1), "judge_seconds": round(time.monotonic() - trained, 1)}
    _leave(task, world, board, SUMMARY, json.dumps(summary, indent=2))


def _leave(task: Task, world: World, board: Any, mark: str, content: str) -> None:
    if not world.leads:
        return
    run = task.job.run
    storage.write_bytes(join(run, mark), content.encode())
    if not task.job.leaves_state:
        storage.delete(join(run, "checkpoints"))
    if not task.keeps_model:
        storage.delete(join(run, "model"))
    board.tell.remote("ended", (task.label, mark == SUMMARY, content))


def failure(run: str) -> str | None:
    path = join(run, FAILURE)
    return storage.read_bytes(path).decode() if storage.exists(path) else None


class TaskListener(Listener):
    """Tells the board whose step it was."""

    def __init__(self, board: Any, label: str):
        super().__init__(board)
        self.label = label

    def tell(self, kind: str, content: Any) -> None:
        self.board.tell.remote(kind, (self.label, content))
