"""A search: prepare once, let Ray Tune run trials that Optuna draws, and hand over the recipe that won.

What trials share is made before the first one: the prepared table (one for each order in the space), and reference
log-probs of every pair that any threshold in the space could send to the preference loss. Optuna's storage is all that
is kept: the same command after any death continues, and with a larger tune.num_samples it extends the study.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from typing import Any

import ray
from ray import tune as ray_tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.connect import missing_resources, uses_gpu, wait_for_resources
from mixdpo_ray.cluster.interruption import Interruption
from mixdpo_ray.cluster.model_fetch import fetch_models
from mixdpo_ray.cluster.preflight import preflight, ready_cluster
from mixdpo_ray.cluster.progress import watching
from mixdpo_ray.cluster.ray_internals import cores_counted_twice
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_record import RunRecord, differences
from mixdpo_ray.cluster.trial_slots import DRIVER_CPUS, Seats, count_seats, cpus_to_start_with
from mixdpo_ray.preparation.held_out import require_held_out
from mixdpo_ray.recipe.measure import read_metrics
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.branches import told_of_equal_trials
from mixdpo_ray.search.check import check_search
from mixdpo_ray.search.display import StudyDisplay
from mixdpo_ray.search.inputs import Tables, cover_all, identity, judged_metrics, prepare_all, rung_steps
from mixdpo_ray.search.margins import resolve
from mixdpo_ray.search.optuna_search import StopAfterRung, StudySearch
from mixdpo_ray.search.output import NO_PLOTLY, StudyOutput, can_draw
from mixdpo_ray.search.samplers import Draw, make_sampler
from mixdpo_ray.search.space import Space, starting_points
from mixdpo_ray.search.study import (
    claim_study,
    forget_study,
    forgive,
    open_study,
    queue,
    release_stale,
    still_wanted,
    was_in_vain,
)
from mixdpo_ray.search.trial import Shared, Trial
from mixdpo_ray.search.trial_judge import JudgeStoppedError, judge_of_trials
from mixdpo_ray.search.trials import rows
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.model_files import with_absolute_paths

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # Optuna's storage and metrics.jsonl hold what they would write again
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails reports why, and no score
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the same command continues: nothing has to be saved first
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def tune(recipe: Recipe, kind: type[Trial] = Trial) -> StudyOutput:
    """Run the study of a recipe to its end. What cannot work is refused before Ray starts, if it can be known then."""
    space = check_search(recipe)
    if not can_draw():
        say(NO_PLOTLY)
    if told := told_of_equal_trials(recipe.tune.space):
        say(told)
    workers = recipe.tune.workers_per_trial or recipe.cluster.fewest_workers  # as many for every trial
    recipe = recipe.model_copy(update={"cluster": recipe.cluster.model_copy(update={"num_workers": workers})})
    folder = study_folder(recipe)
    recipe = RunRecord(folder).as_begun(recipe)
    with ready_cluster(recipe, cpus=cpus_to_start_with(recipe.cluster, recipe.tune.max_concurrent_trials)):
        tables = prepare_all(recipe, space)
        fetch_models(recipe)
        first = next(iter(tables.values()))
        require_held_out(recipe, first, judged_metrics(recipe))
        space = resolve(space, recipe, first.index("train").difficulty)
        points = starting_points(recipe, space)
        steps = rung_steps(recipe, first)
        with RunRecord(folder).locked():
            if recipe.output.fresh:
                forget_study(recipe, folder)
            seats = _seats(recipe)
            say(seats.arithmetic)
            asked = identity(recipe, tables)
            study = open_study(recipe, folder, _sampler(recipe, space))
            if was_in_vain(study, asked):
                forget_study(recipe, folder)
                study = open_study(recipe, folder, _sampler(recipe, space))
            claim_study(study, asked, differences)
            output = StudyOutput(recipe, folder, space, study, steps, seats.arithmetic, sys.argv)
            RunRecord(folder).write_recipe(recipe, asked)
            _search(output, tables, points, seats, kind)
    return output


def study_folder(recipe: Recipe) -> str:
    return storage.join(recipe.output.storage_path, "studies", recipe.output.name)


def _sampler(recipe: Recipe, space: Space, known: int = 0) -> Any:
    return make_sampler(recipe.tune.sampler, Draw.of(recipe.tune, space.conditional, known))


def _seats(recipe: Recipe) -> Seats:
    cluster = recipe.cluster
    if wait_for_resources(cluster, say, DRIVER_CPUS):
        preflight(recipe)  # of the nodes that came
    have, wanted = ray.cluster_resources(), recipe.tune.max_concurrent_trials
    return count_seats(cluster, uses_gpu(cluster), have, wanted, cores=cores_counted_twice(have))


def _search(output: StudyOutput, tables: Tables, points: list[dict[str, Any]], seats: Seats, kind: type[Trial]) -> None:
    recipe, study, space, folder = output.recipe, output.study, output.space, storage.absolute(output.folder)
    watcher = claim_run(folder)
    reference = cover_all(recipe, space, tables)
    counted = {"prepared tables": len(tables), **_passes(reference, "before the first trial")}
    if stale := release_stale(study, recipe.tune.max_failures):
        say(f"continuing what was cut: {', '.join(f'trial {number}' for number in stale)}")
    grid = space.points() if recipe.tune.sampler == "grid" else None
    queue(study, [space.parameters(point) for point in (grid or points)])
    wanted = still_wanted(study, min(recipe.tune.num_samples, len(grid) if grid else recipe.tune.num_samples))
    study.sampler = _sampler(recipe, space, known=len(study.get_trials(deepcopy=False)))
    # where workers die, Tune starts the trial again, which continues: two counts of failures would multiply
    cluster = recipe.cluster.model_copy(update={"max_failures": 0})
    inside = recipe.model_copy(update={"model": with_absolute_paths(recipe.model), "cluster": cluster})
    folders = {order: table.folder for order, table in tables.items()}
    try:
        if wanted:
            with judge_of_trials(recipe) as judge:
                shared = Shared(inside, folder, folders, reference, watcher, judge)
                _run(output, shared, min(seats.at_once, wanted), wanted, kind)
    except (KeyboardInterrupt, JudgeStoppedError) as stopped:
        forgive(study)
        if isinstance(stopped, JudgeStoppedError):
            ray.kill(watcher)  # who keeps the study's name while this process lives
        raise
    finally:
        output.write({**counted, **_passes(reference, "after the last one")})


def _passes(reference: str | None, when: str) -> dict[str, int]:
    return {f"reference passes {when}": ReferenceTable.open(reference).manifest.passes if reference else 0}


def _run(output: StudyOutput, shared: Shared, at_once: int, wanted: int, kind: type[Trial]) -> None:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Tune would write them into each trial's runtime_env, and so into Ray's logs; nodes have credentials of their own
    ENV_VARS_TO_PROPAGATE.difference_update(_SECRETS)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # why a trial failed is in its row, in one line
    recipe = shared.recipe
    metrics, budgets = read_metrics(recipe.tune.metric), recipe.tune.early_stopping.budgets
    display = StudyDisplay(
        recipe.output.name, metrics, budgets, recipe.train.num_train_epochs, wanted, rows(output.study)
    )
    search = StudySearch(recipe, shared.folder, output.study, output.space, display.show)
    interruption, scratch = Interruption(), RunRecord(shared.folder).scratch
    tuner = ray_tune.Tuner(
        ray_tune.with_parameters(kind, shared=shared),
        tune_config=ray_tune.TuneConfig(
            search_alg=search,
            scheduler=StopAfterRung(search, interruption.check),
            num_samples=wanted,
            max_concurrent_trials=at_once,
            reuse_actors=True,  # and with the process of a trial its workers
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=ray_tune.RunConfig(
            name=f"attempt-{time.time_ns()}",
            storage_path=scratch,
            failure_config=ray_tune.FailureConfig(max_failures=recipe.tune.max_failures),
            checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),  # the rungs' folders are all there is
            verbose=0,
        ),
    )
    missing = partial(missing_resources, recipe.cluster, to_start=False)
    with interruption.heard(), display, watching(shared.watcher, display, missing):
        tuner.fit()
    ray.kill(shared.watcher)  # Tune keeps what trials share, and with it the study's name, while this process lives
    storage.delete(scratch)


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:04d}"
