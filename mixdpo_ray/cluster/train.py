"""One training run on Ray: prepare what is missing, start the workers, watch them, leave a summary.

Ray Train places the workers, restarts the group when one dies, and is told of each checkpoint. Which checkpoint is the
newest is decided by the committed folders of the run alone (training/checkpoints.py), never by what Ray remembers.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray.cluster.connect import missing_resources, wait_for_resources
from mixdpo_ray.cluster.doctor.preflight import preflight
from mixdpo_ray.cluster.fit import fit
from mixdpo_ray.cluster.prepare import prepare
from mixdpo_ray.cluster.progress import Board, Display, watching
from mixdpo_ray.cluster.reference import reference
from mixdpo_ray.cluster.run_folder import finished_summary, locked, run_folder, write_summary
from mixdpo_ray.cluster.training_job import absolute, make_job
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.recipe import Recipe
from mixdpo_ray.training.curves import draw_curves
from mixdpo_ray.training.schedule import check_warmup

NAMESPACE = "mixdpo_ray"


def train(recipe: Recipe) -> dict[str, Any]:
    """Train as the recipe says, continuing where a killed run stopped. Ray must be connected."""
    table = prepare(recipe)
    with locked(run_folder(recipe)):
        job = make_job(recipe, table)
        plan = job.plan(table)
        check_warmup(plan, recipe.train.schedule)
        steps = job.steps(plan)
        if summary := finished_summary(recipe, steps):
            return {**summary, "already_finished": True}
        folder = reference(recipe, table, job)
        job = job.with_reference(folder and absolute(folder))
        board = take_board(job.run)
        display = Display("train", steps)
        wait_for_resources(recipe.cluster, lambda text: display.show("phase", text))
        preflight(recipe)  # of the nodes that came while it waited
        began = time.monotonic()
        with watching(board, display, lambda: missing_resources(recipe.cluster, to_start=False)):
            summary = fit(recipe.cluster, job, board)
        summary = {**summary, "steps": steps, "seconds": round(time.monotonic() - began, 1)}
        draw_curves(job.run)
        write_summary(recipe, summary)
        return {**summary, "already_finished": False}


def take_board(run: str) -> Any:
    """The run's message board and its lock in this cluster. A killed driver's board lives on for some seconds.

    It lies on the driver's node: no other node's death may take it away.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class: Any = Board  # a Ray actor class: its own attributes are not the plain class's
    name = f"board-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    for _ in range(20):
        try:
            return actor_class.options(name=name, namespace=NAMESPACE, scheduling_strategy=here).remote()
        except ValueError:
            time.sleep(1)
    raise RunConflictError(f"{run} is in use by another job of this cluster: wait for it, or choose another name")
