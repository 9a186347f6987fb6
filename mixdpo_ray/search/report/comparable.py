"""The trials at the rung where most of them can be compared.

Early stopping leaves few trials that ran to the end, and a handful says nothing about settings. All of them ran the
first rung: figures about settings show their scores there, until enough trials have ended.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import guard_holds, scored, trials_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ENOUGH = 8


def comparable(study: Study, facts: StudyFacts) -> tuple[Study, str | None]:
    """The study itself, or one with the same trials and their scores at a rung, and the sentence that says so."""
    done = len(scored(study))
    if len(facts.metrics) > 1 or done >= ENOUGH:
        return study, None
    trials = trials_of(study)
    reached = {budget: sum(_score(trial, budget) is not None for trial in trials) for budget, _ in facts.rungs}
    budget = max(reached, key=lambda one: (reached[one], one), default=None)
    if budget is None or reached[budget] <= done:
        return study, None
    number = [one for one, _ in facts.rungs].index(budget) + 1
    return _at(study, budget), (
        f"Only {done} of the trials ran to the end, so settings are compared by the score after rung {number} of "
        f"{len(facts.rungs)} ({dict(facts.rungs)[budget]} steps), which {reached[budget]} trials reached."
    )


def _at(study: Study, budget: int) -> Study:
    import optuna
    from optuna.trial import TrialState, create_trial

    same = optuna.create_study(direction=study.direction)
    for trial in trials_of(study):
        score = _score(trial, budget)
        copy = create_trial(
            state=TrialState.FAIL if score is None else TrialState.COMPLETE,
            value=score,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
        )
        same.add_trial(copy)
    return same


def _score(trial: FrozenTrial, budget: int) -> float | None:
    """None also for a trial that failed later, or does not keep the guard: it would not have won."""
    score = trial.intermediate_values.get(budget)
    usable = trial.state.name != "FAIL" and guard_holds(trial)
    return score if usable and score is not None and math.isfinite(score) else None
