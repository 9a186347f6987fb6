"""A study driven as Ray Tune drives it, without Ray: a trial is asked for, reports its rungs, and ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from mixdpo_ray.cluster.events import Event
from mixdpo_ray.recipe.measure import read_metrics
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.optuna_search import StudySearch
from mixdpo_ray.search.samplers import Draw, make_sampler
from mixdpo_ray.search.space import Space
from mixdpo_ray.search.study import open_study
from mixdpo_ray.search.trials import TrialRow, best, rows

ACCURACY, DRIFT = "eval_rewards/accuracies", "eval_logps/chosen_drift"


class DrivenStudy:
    def __init__(self, recipe: Recipe, folder: Path, study: optuna.Study | None = None):
        """Each is a driver of its own: another one on the same folder continues after this one has ended or died."""
        self.recipe, space = recipe, Space.of(recipe)
        self.metrics, self.budgets = read_metrics(recipe.tune.metric), recipe.tune.early_stopping.budgets
        self.study = study or open_study(recipe, str(folder), make_sampler("random", Draw(0, conditional=False)))
        known = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = make_sampler(recipe.tune.sampler, Draw.of(recipe.tune, space.conditional, known))
        self.events: list[Event] = []
        self.search = StudySearch(recipe, str(folder), self.study, space, self.events.append)
        self.ids, self.counter = dict[int, str](), itertools.count()
        self.last: dict[int, dict[str, Any]] = {}  # what each trial reported last

    def start(self) -> tuple[int, dict[str, Any]]:
        """Number and settings of the next trial."""
        tune_id = f"tune-{next(self.counter)}"
        trial = self.search.suggest(tune_id)["trial"]
        self.ids[trial["number"]] = tune_id
        return trial["number"], trial["settings"]

    def result(self, number: int, budget: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What a trial reports after a rung: 10 pairs and 2 seconds of 2 CPUs for each unit of its budget."""
        costs = {"rung_seconds": 2.0 * budget, "pairs": 10 * budget, "cpu_seconds": 4.0 * budget}
        self.last[number] = {"budget": budget, "metrics": json.dumps(metrics), **costs}
        return self.last[number]

    def report(self, number: int, budget: int, metrics: Mapping[str, float]) -> bool:
        """Whether the trial is to be stopped."""
        return self.search.should_stop(self.ids[number], self.result(number, budget, metrics))

    def end(self, number: int) -> TrialRow:
        """It was stopped, or its function has returned."""
        self.search.on_trial_complete(self.ids[number], self.last[number])
        return self.row(number)

    def refuse(self, number: int, reason: str) -> TrialRow:
        """It says itself that it cannot succeed."""
        self.search.on_trial_complete(self.ids[number], {"failure": reason})
        return self.row(number)

    def crash(self, number: int) -> TrialRow:
        """It raised, or its process died, more often than it is started again."""
        self.search.on_trial_complete(self.ids[number], error=True)
        return self.row(number)

    def train(self, score: Callable[[Mapping[str, Any]], float], *, drift: float = 0.0) -> TrialRow:
        """A whole trial: rung after rung, until it is stopped or at its end."""
        number, settings = self.start()
        for budget in self.budgets:
            if self.report(number, budget, {ACCURACY: score(settings), DRIFT: drift}):
                break
        return self.end(number)

    def row(self, number: int) -> TrialRow:
        (row,) = (row for row in rows(self.study) if row.number == number)
        return row

    @property
    def best(self) -> TrialRow | None:
        return best(rows(self.study), self.metrics)
