"""Ray Tune's side of a study: draws settings from Optuna, and ends each trial as what it was.

Ray Tune's own searcher for Optuna is not used: it leaves a NaN trial RUNNING for ever, calls a stopped trial COMPLETE
with the value of its first rung, and knows nothing of trials whose driver died (search/study.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from mixdpo_ray import storage
from mixdpo_ray.cluster.events import Event
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.cluster.worker_deaths import DIED
from mixdpo_ray.recipe.measure import read_guard, read_metrics
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.attempts import FOLDER, first_number
from mixdpo_ray.search.samplers import GUARD
from mixdpo_ray.search.space import Space
from mixdpo_ray.search.study import SETTINGS, complete, fail, prune, report
from mixdpo_ray.search.trial_judge import JudgeStoppedError
from mixdpo_ray.search.trials import CPU_SECONDS, METRICS, PAIRS, SECONDS, TrialRow, rows
from mixdpo_ray.storage import join


@dataclass(frozen=True)
class TrialBegan(Event):
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RungEnded(Event):
    budget: int
    score: float


@dataclass(frozen=True)
class TrialEnded(Event):
    row: TrialRow


class StudySearch(Searcher):  # type: ignore[misc]
    def __init__(self, recipe: Recipe, folder: str, study: optuna.Study, space: Space, tell: Callable[[Event], None]):
        self.metrics = read_metrics(recipe.tune.metric)
        names, modes = [metric.name for metric in self.metrics], [metric.direction for metric in self.metrics]
        single = len(names) == 1
        super().__init__(metric=names[0] if single else names, mode=modes[0] if single else modes)
        self.space, self.study = space, study
        self.trials: dict[str, optuna.Trial] = {}  # by Tune's name for them
        self.numbers: dict[str, int] = {}  # that a person knows them by
        self.ended: set[str] = set()
        self.last = recipe.tune.early_stopping.budgets[-1]
        self.guard = read_guard(recipe.tune.guard) if recipe.tune.guard else None
        self.folder, self.tell = folder, tell
        self.stopped: JudgeStoppedError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any]:
        trial = self.study.ask()
        settings = self.space.suggest(trial)
        folder = trial.user_attrs.get(FOLDER) or f"trials/{trial.number:04d}"
        trial.set_user_attr(FOLDER, folder)
        trial.set_user_attr(SETTINGS, settings)
        self.trials[trial_id] = trial
        trials = self.study.get_trials(deepcopy=False)
        number = self.numbers[trial_id] = first_number(trials, trials[trial.number])
        storage.delete(self._record(folder).failure_file)
        self.tell(TrialBegan(settings, job=number))
        return {"trial": {"number": number, "folder": folder, "settings": settings}}

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell whether a trial should stop after a rung; the scheduler asks before the searcher hears of the result."""
        trial, budget = self.trials[trial_id], result["budget"]
        found = json.loads(result["metrics"])
        self._keep(trial, budget, result, found)
        value = found.get(self.metrics[0].name, math.nan)
        if len(self.metrics) > 1 or not math.isfinite(value):
            return False
        report(trial, budget, value)
        self.tell(RungEnded(budget, value, job=self.numbers[trial_id]))
        return bool(budget < self.last and trial.should_prune())

    def _keep(self, trial: optuna.Trial, budget: int, result: dict[str, Any], found: dict[str, float]) -> None:
        """What a rung cost and measured. A trial that was started again tells of its first rungs again."""
        costs = {**trial.user_attrs.get("rungs", {}), str(budget): [result["rung_seconds"], result["pairs"],
                                                                    result["cpu_seconds"]]}  # fmt: skip
        seconds, pairs, cpu_seconds = (sum(column) for column in zip(*costs.values(), strict=True))
        facts = {"rungs": costs, SECONDS: seconds, PAIRS: pairs, CPU_SECONDS: cpu_seconds, METRICS: found}
        if self.guard is not None:
            facts[GUARD] = [self.guard.violation(found)]
        for name, value in facts.items():
            trial.set_user_attr(name, value)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is left to do: should_stop has heard of it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id in self.ended or (result is None and not error):
            return
        self.ended.add(trial_id)
        if result and "stopped" in result:  # the trial has not ended: it goes on when the command is repeated
            self.stopped = JudgeStoppedError(result["stopped"])
            return
        trial, result = self.trials[trial_id], result or {}
        if error:
            fail(self.study, trial, self._why(trial))
        elif "failure" in result:
            fail(self.study, trial, result["failure"])
        else:
            self._finish(trial, result["budget"], json.loads(result["metrics"]))
        (row,) = (row for row in rows(self.study) if row.number == self.numbers[trial_id])
        self.tell(TrialEnded(row, job=row.number))

    def _finish(self, trial: optuna.Trial, budget: int, found: dict[str, float]) -> None:
        if self.guard is not None:
            trial.set_constraint(GUARD, self.guard.violation(found))  # samplers go by it, of stopped trials too
        if budget < self.last:
            prune(self.study, trial)
        else:
            complete(self.study, trial, self.metrics, found)

    def _why(self, trial: optuna.Trial) -> str:
        return self._record(trial.user_attrs[FOLDER]).failure() or DIED

    def _record(self, folder: str) -> RunRecord:
        return RunRecord(join(self.folder, folder))

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes down what it was given; nobody reads it, and locks and live displays cannot be written."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file; a study is restored from Optuna's storage alone."""
        Path(checkpoint_path).touch()


class StopAfterRung(FIFOScheduler):  # type: ignore[misc]
    """Stops trials at their last rung, and those that the study's pruner gives up before. `check` may raise."""

    def __init__(self, search: StudySearch, check: Callable[[], None]):
        super().__init__()
        self.search, self.check = search, check

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the searcher's

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        self.check()
        if self.search.stopped is not None:
            raise self.search.stopped
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stop = self.search.should_stop(trial.trial_id, result) or result["budget"] == self.search.last
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)
