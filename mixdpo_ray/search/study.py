"""A study in Optuna's storage: opened, continued, and each trial ended once, truthfully.

The storage is all that is kept of a study. Whatever dies, trials that it still calls RUNNING have lost their driver:
they are told FAIL, and what they were about to learn is queued again under a new number, which takes over their folder.
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
from mixdpo_ray.search.journal import open_journal
from mixdpo_ray.storage import join

JOURNAL = "optuna.journal"
IDENTITY, CONTINUES, REASON, FOLDER, SETTINGS = "identity", "continues", "reason", "folder", "settings"
INTERRUPTED = "interrupted"
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
    """End what a dead driver left, and queue it again, unless it died too often. The numbers that were ended."""
    trials = study.get_trials(deepcopy=False)
    taken_over = {trial.user_attrs.get(CONTINUES) for trial in trials}
    stale = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in stale:
        deaths = sum(INTERRUPTED not in one.user_attrs for one in ancestry(trials, trial))
        again = deaths <= max_failures
        if again and trial.number not in taken_over:
            attributes = {CONTINUES: trial.number, FOLDER: trial.user_attrs.get(FOLDER)}
            asked = trial.system_attrs.get("fixed_params", {})  # what was queued and not yet drawn when it died
            study.enqueue_trial({**asked, **trial.params}, user_attrs=attributes)
        fail(study, optuna.Trial(study, trial._trial_id), LOST if again else f"{LOST} {deaths} times while it ran")
    return [trial.number for trial in stale]


def forgive(study: optuna.Study) -> None:
    """A person's Ctrl-C is no fault of the trials that were running: it does not count towards their deaths."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        optuna.Trial(study, trial._trial_id).set_user_attr(INTERRUPTED, True)


def ancestry(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> Iterator[FrozenTrial]:
    """The trial, the one that it continues, and so on."""
    yield trial
    while (number := trial.user_attrs.get(CONTINUES)) is not None:
        trial = trials[number]
        yield trial


def queue(study: optuna.Study, points: Iterable[Mapping[str, Any]]) -> None:
    """Points to try before anything is drawn; those that were queued before are left."""
    for parameters in points:
        study.enqueue_trial(dict(parameters), skip_if_exists=True)


def still_wanted(study: optuna.Study, num_samples: int) -> int:
    """Trials to start: a trial and those that continue it count once."""
    trials = study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    ended = [trial for trial in trials if trial.state.is_finished() and trial.number not in continued]
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
