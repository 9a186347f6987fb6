"""A comparison: every arm with every seed, from shared tables, references and first stages, and a table of the outcome.

Each arm and seed has a folder of its own below the comparison's. What has ended there is never trained again, so the
same command continues after any death, and a longer list of arms or seeds extends what is there.
"""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray import storage
from mixdpo_ray.cluster.board import take_board
from mixdpo_ray.cluster.compare_display import CompareDisplay
from mixdpo_ray.cluster.compare_inputs import Unit, make_units
from mixdpo_ray.cluster.compare_output import CompareOutput
from mixdpo_ray.cluster.connect import connected, missing_resources, uses_gpu, wait_for_resources
from mixdpo_ray.cluster.doctor.preflight import preflight
from mixdpo_ray.cluster.failures import plain_errors
from mixdpo_ray.cluster.interruption import Interruption
from mixdpo_ray.cluster.progress import watching
from mixdpo_ray.cluster.relay import Task, run_in_turn
from mixdpo_ray.cluster.run_folder import locked
from mixdpo_ray.cluster.seats import DRIVER_CPUS, count_seats, cpus_to_start_with
from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.cluster.training_job import absolute
from mixdpo_ray.cluster.worlds import judge_untrained, make_worlds
from mixdpo_ray.comparison.arms import arms_of, check, of_seed
from mixdpo_ray.recipe import Recipe
from mixdpo_ray.storage import join


def compare(recipe: Recipe) -> CompareOutput:
    """To its end. What cannot work is refused before Ray starts, if it can be known then."""
    check(recipe)
    folder = join(recipe.output.storage_path, "comparisons", recipe.output.name)
    output = CompareOutput(recipe, folder)
    clusters = [recipe.cluster, *(arm.recipe.cluster for arm in arms_of(recipe, recipe.compare.seeds[0]))]
    cpus = max(cpus_to_start_with(cluster, recipe.compare.at_once) for cluster in clusters)
    with connected(recipe.cluster, cpus), locked(folder):
        if recipe.output.fresh:
            storage.delete(folder)
        output.begin()
        preflight(recipe)
        make_worlds(recipe)
        preflight(of_seed(recipe, recipe.compare.seeds[0]))
        units = make_units(recipe, absolute(folder))
        output.claim(units)
        try:
            _run(recipe, output, units)
            if recipe.compare.world is not None and recipe.compare.untrained is not None:
                judge_untrained(recipe, output.untrained_folders)
        finally:
            output.write()
    return output


def _run(recipe: Recipe, output: CompareOutput, units: Sequence[Unit]) -> None:
    left = [unit.left for unit in units if unit.left.tasks]
    if not left:
        return
    folder = absolute(output.folder)
    board = take_board(folder)
    tasks = [task for unit in left for task in unit.tasks]
    already = sum(task.ended for unit in units for task in unit.tasks if not task.job.leaves_state)
    display = CompareDisplay(recipe.output.name, tasks, already, output.write_tables)
    with watching(board, display, lambda: missing_resources(recipe.cluster, to_start=False)):
        for cluster in dict.fromkeys(unit.cluster.model_dump_json() for unit in left):
            settings = ClusterSettings.model_validate_json(cluster)
            wait_for_resources(settings, lambda text: display.show("phase", text), DRIVER_CPUS)
            seats = count_seats(settings, uses_gpu(settings), ray.cluster_resources(), recipe.compare.at_once)
            mine = [unit for unit in left if unit.cluster.model_dump_json() == cluster]
            _in_lanes(settings, _lanes(mine, seats.at_once), join(folder, "ray"), board)
    storage.delete(join(folder, "ray"))
    for unit in units:
        unit.forget_stage()


def _lanes(units: Sequence[Unit], count: int) -> list[list[Task]]:
    """Longest first, each to the lane that would be done first."""
    lanes: list[list[Task]] = [[] for _ in range(min(count, len(units)))]
    for unit in sorted(units, key=lambda unit: -unit.steps):
        min(lanes, key=lambda lane: sum(task.steps for task in lane)).extend(unit.tasks)
    return lanes


def _in_lanes(cluster: ClusterSettings, lanes: Sequence[Sequence[Task]], folder: str, board: object) -> None:
    """Each lane follows its tasks in a process of its own: Ray would not end in peace under threads of the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    follow = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_follow)
    running = [follow.remote(cluster, tasks, join(folder, f"lane-{n}"), board) for n, tasks in enumerate(lanes)]
    interruption = Interruption()
    with interruption.heard(), plain_errors():
        while running:
            done, running = ray.wait(running, timeout=0.5)
            interruption.check()
            ray.get(done)


def _follow(cluster: ClusterSettings, tasks: Sequence[Task], folder: str, board: object) -> None:
    """A group of workers at a time. On GPUs one for every task: memory is surely free again then."""
    groups = [[task] for task in tasks] if uses_gpu(cluster) else [tasks]
    for place, group in enumerate(groups):
        run_in_turn(cluster, group, join(folder, f"{place}"), board)
