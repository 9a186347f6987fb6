"""A study in Optuna's storage: opened, continued, and each trial ended once, truthfully.

The storage is all that is kept of a study. Whatever dies, trials that it still calls RUNNING have lost their driver:
they wait again, with what they have drawn and learned, and the next driver goes on with them.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from mixdpo_ray import storage
from mixdpo_ray.errors import RunConflictError, StorageError
from mixdpo_ray.recipe.measure import Measure, read_metrics
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.tune import EarlyStoppingSettings
from mixdpo_ray.runs.job import delete_and_say
from mixdpo_ray.search.attempts import (
    CONTINUED,
    CONTINUES,
    DEATHS,
    INTERRUPTED,
    deaths_of,
    first_number,
    folded,
    own_deaths,
    times_continued,
)
from mixdpo_ray.search.journal import open_journal
from mixdpo_ray.storage import join

JOURNAL = "optuna.journal"
IDENTITY, REASON, SETTINGS = "identity", "reason", "settings"
LOST = "its driver stopped"


def open_study(recipe: Recipe, folder: str, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """The study of this name, made if it does not exist. Nobody else may use it meanwhile: lock the folder first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    metrics = read_metrics(recipe.tune.metric)
    with _explained(recipe), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.create_study(
            study_name=recipe.output.name,
            storage=open_storage(recipe, folder),
            sampler=sampler,
            pruner=_pruner(recipe.tune.early_stopping),
            directions=["maximize" if metric.direction == "max" else "minimize" for metric in metrics],
            load_if_exists=True,
        )


def open_storage(recipe: Recipe, folder: str) -> optuna.storages.BaseStorage:
    if recipe.tune.storage is not None:
        return optuna.storages.RDBStorage(recipe.tune.storage)
    return optuna.storages.JournalStorage(open_journal(storage.local(join(folder, JOURNAL))))


def forget_study(recipe: Recipe, folder: str) -> None:
    """Delete a study and its folder, for output.fresh."""
    if recipe.tune.storage is not None:
        with _explained(recipe):
            known = optuna.get_all_study_names(recipe.tune.storage)
            if recipe.output.name in known:
                optuna.delete_study(study_name=recipe.output.name, storage=recipe.tune.storage)
    delete_and_say(folder)


def was_in_vain(study: optuna.Study, identity: Mapping[str, Any]) -> bool:
    """Whether it searched something else and no trial of it came to a score: nothing is lost."""
    before, now = study.user_attrs.get(IDENTITY), json.loads(json.dumps(identity))
    trials = study.get_trials(deepcopy=False)
    failed = (
        trial.state in (TrialState.FAIL, TrialState.WAITING) and not trial.intermediate_values for trial in trials
    )
    return before is not None and before != now and all(failed)


def claim_study(study: optuna.Study, identity: Mapping[str, Any], differences: Any) -> None:
    """Refuse to mix trials of two searches: what was found under one space says nothing under another."""
    before = study.user_attrs.get(IDENTITY)
    now = json.loads(json.dumps(identity))
    if before is None:
        study.set_user_attr(IDENTITY, now)
    elif changes := differences(before, now):
        raise RunConflictError(
            f"study {study.study_name} searches something else ({'; '.join(changes)}): choose another output.name, or "
            "output.fresh=true to delete it and start over"
        )


def release_stale(study: optuna.Study, max_failures: int) -> list[int]:
    """Let what a dead driver left wait for this one, unless it died too often. The numbers of these trials."""
    trials = study.get_trials(deepcopy=False)
    taken_over = {trial.user_attrs.get(CONTINUES) for trial in trials}
    stale = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for frozen in stale:
        trial, deaths = optuna.Trial(study, frozen._trial_id), deaths_of(trials, frozen)
        if frozen.number in taken_over:  # an earlier version died when it had queued the next attempt
            fail(study, trial, LOST)
        elif deaths > max_failures:
            fail(study, trial, f"{LOST} {deaths} times while it ran")
        else:
            trial.storage.set_trial_state_values(frozen._trial_id, TrialState.WAITING)
            notes = {INTERRUPTED: False, DEATHS: own_deaths(frozen), CONTINUED: times_continued(trials, frozen) + 1}
            for name, value in notes.items():
                trial.set_user_attr(name, value)
    return [first_number(trials, frozen) for frozen in stale]


def forgive(study: optuna.Study) -> None:
    """A person's Ctrl-C is no fault of the trials that were running: it does not count towards their deaths."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        optuna.Trial(study, trial._trial_id).set_user_attr(INTERRUPTED, True)


def queue(study: optuna.Study, points: Iterable[Mapping[str, Any]]) -> None:
    """Points to try before anything is drawn; those that were queued before are left."""
    for parameters in points:
        study.enqueue_trial(dict(parameters), skip_if_exists=True)


def still_wanted(study: optuna.Study, num_samples: int) -> int:
    """Trials to start: a trial and those that continue it count once."""
    ended = [trial for trial in folded(study.get_trials(deepcopy=False)) if trial.state.is_finished()]
    return max(0, num_samples - len(ended))


def report(trial: optuna.Trial, budget: int, value: float) -> None:
    """A rung's score. A trial that was started again reports its rungs again."""
    if budget not in _frozen(trial).intermediate_values:
        trial.report(value, budget)


def complete(study: optuna.Study, trial: optuna.Trial, metrics: Sequence[Measure], found: Mapping[str, float]) -> None:
    """End a trial with its scores, if it has them: a measure missing or not finite is a failure, and never the best."""
    values = [found.get(metric.name, math.nan) for metric in metrics]
    bad = [metric.name for metric, value in zip(metrics, values, strict=True) if not math.isfinite(value)]
    if bad:
        fail(study, trial, f"{bad[0]} is {'not finite' if bad[0] in found else 'missing'}")
    else:
        study.tell(trial, values)


def prune(study: optuna.Study, trial: optuna.Trial) -> None:
    study.tell(trial, state=TrialState.PRUNED)


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    trial.set_user_attr(REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.storage.get_trial(trial._trial_id)


def _pruner(settings: EarlyStoppingSettings) -> optuna.pruners.BasePruner:
    """They decide from the storage alone, so a restarted study goes on as it would have."""
    if settings.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=settings.reduction_factor)
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.pruners.NopPruner()


@contextmanager
def _explained(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        cause = " ".join(str(error).split())[:200]
        raise StorageError(f"tune.storage {recipe.tune.storage}: {cause}; check the URL and the database") from error
