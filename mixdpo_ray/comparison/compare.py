"""A comparison: every arm with every seed, from shared tables, references and first stages, and a table of the outcome.

Each arm and seed has a folder of its own below the comparison's. What has ended there is never trained again, so the
same command continues after any death, and a longer list of arms or seeds extends what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import missing_resources, uses_gpu, wait_for_resources
from mixdpo_ray.cluster.events import PhaseBegan
from mixdpo_ray.cluster.interruption import Interruption
from mixdpo_ray.cluster.preflight import preflight, ready_cluster
from mixdpo_ray.cluster.progress import watching
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.cluster.trial_slots import ARMS, DRIVER_CPUS, count_seats, cpus_to_start_with
from mixdpo_ray.comparison.arms import arms_of, check_arms, of_seed
from mixdpo_ray.comparison.display import CompareDisplay
from mixdpo_ray.comparison.inputs import Unit, make_units
from mixdpo_ray.comparison.job_sequence import RecordedJob, train_in_sequence
from mixdpo_ray.comparison.judged_arms import JudgingOfArms, judge_arms
from mixdpo_ray.comparison.output import CompareOutput
from mixdpo_ray.comparison.playgrounds import judge_untrained, make_playgrounds
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import delete_and_say
from mixdpo_ray.storage import join


def compare(recipe: Recipe) -> CompareOutput:
    """Run a comparison to its end. What cannot work is refused before Ray starts, if it can be known then."""
    check_arms(recipe)
    folder = join(recipe.output.storage_path, "comparisons", recipe.output.name)
    recipe = RunRecord(folder).as_begun(recipe)
    output = CompareOutput(recipe, folder)
    clusters = [recipe.cluster, *(arm.recipe.cluster for arm in arms_of(recipe, recipe.compare.seeds[0]))]
    cpus = max(cpus_to_start_with(cluster, recipe.compare.at_once) for cluster in clusters)
    with ready_cluster(recipe, cpus=cpus), RunRecord(folder).locked():
        if recipe.output.fresh:
            delete_and_say(folder)
        output.refuse_another_judge()
        output.begin()
        if recipe.compare.playground is not None:
            make_playgrounds(recipe)
            preflight(of_seed(recipe, recipe.compare.seeds[0]))  # of the models that are there only now
        judging: JudgingOfArms = {}
        units = make_units(recipe, storage.absolute(folder), judging)
        output.claim(units)
        try:
            _run(recipe, output, units)
            if recipe.compare.playground is not None and recipe.compare.untrained is not None:
                judge_untrained(recipe, output.untrained_folders)
            judge_arms(recipe, output.arm_records, output.untrained_records, judging)
        finally:
            output.write()
    return output


def _run(recipe: Recipe, output: CompareOutput, units: Sequence[Unit]) -> None:
    left = [unit.left for unit in units if unit.left.jobs]
    if not left:
        return
    folder = storage.absolute(output.folder)
    run_actor, scratch = claim_run(folder), RunRecord(folder).scratch
    jobs = [job for unit in left for job in unit.jobs]
    already = sum(job.ended for unit in units for job in unit.jobs if not job.keeps_state)
    missing = partial(missing_resources, recipe.cluster, to_start=False)
    display = CompareDisplay(recipe.output.name, jobs, already, output.write_tables)
    with display, watching(run_actor, display, missing):
        for cluster in dict.fromkeys(unit.cluster.model_dump_json() for unit in left):
            settings = ClusterSettings.model_validate_json(cluster)
            wait_for_resources(settings, lambda text: display.show(PhaseBegan(text)), DRIVER_CPUS)
            have, wanted = ray.cluster_resources(), recipe.compare.at_once
            seats = count_seats(settings, uses_gpu(settings), have, wanted, counted=ARMS)
            display.show(PhaseBegan("starting the workers"))
            mine = [unit for unit in left if unit.cluster.model_dump_json() == cluster]
            _in_lanes(settings, _lanes(mine, seats.at_once), scratch, run_actor)
    storage.delete(scratch)
    for unit in units:
        unit.forget_stage()


def _lanes(units: Sequence[Unit], count: int) -> list[list[RecordedJob]]:
    """Longest first, each to the lane that would be done first."""
    lanes: list[list[RecordedJob]] = [[] for _ in range(min(count, len(units)))]
    for unit in sorted(units, key=lambda unit: -unit.steps):
        min(lanes, key=lambda lane: sum(job.steps for job in lane)).extend(unit.jobs)
    return lanes


def _in_lanes(cluster: ClusterSettings, lanes: Sequence[Sequence[RecordedJob]], folder: str, run_actor: object) -> None:
    """Each lane follows its group of workers in a process of its own (worker_group.py)."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    follow = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(train_in_sequence)
    running = [follow.remote(cluster, jobs, folder, run_actor) for jobs in lanes]
    interruption = Interruption()
    with interruption.heard(), plain_errors():
        while running:
            done, running = ray.wait(running, timeout=0.5)
            interruption.check()
            ray.get(done)
