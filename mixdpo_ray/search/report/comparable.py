"""The trials at the rung where most of them can be compared.

Early stopping leaves few trials that ran to the end, and fewer than five say nothing about settings. All of them ran
the first rung: figures about settings show their scores there, and say so, until enough trials have ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import guard_holds, scored, trials_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ENOUGH = 5


@dataclass(frozen=True)
class Compared:
    study: Study
    facts: StudyFacts  # with the rung
    note: str | None = None  # the sentence that says so


def comparable(study: Study, facts: StudyFacts) -> Compared:
    """The study itself, or one with the same trials and their scores at a rung."""
    done = len(scored(study))
    if len(facts.metrics) > 1 or done >= ENOUGH:
        return Compared(study, facts)
    trials = trials_of(study)
    reached = {budget: sum(_score(trial, budget) is not None for trial in trials) for budget, _ in facts.rungs}
    budget = max(reached, key=lambda one: (reached[one], one), default=None)
    if budget is None or reached[budget] <= done:
        return Compared(study, facts)
    after = f" after rung {[one for one, _ in facts.rungs].index(budget) + 1} of {len(facts.rungs)}"
    note = (
        f"Only {done} of the trials ran to the end, so settings are compared by the score{after} "
        f"({dict(facts.rungs)[budget]} steps), which {reached[budget]} trials reached. It tells what the settings did "
        "there; the winner won by its score at the end."
    )
    return Compared(_at(study, budget), replace(facts, after=after), note)


def _at(study: Study, budget: int) -> Study:
    from optuna.trial import TrialState, create_trial

    from mixdpo_ray.search.report.study_of_trials import StudyOfTrials

    scored_there = []
    for trial in trials_of(study):
        score = _score(trial, budget)
        copy = create_trial(
            state=TrialState.FAIL if score is None else TrialState.COMPLETE,
            value=score,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
        )
        copy.number = trial.number
        scored_there.append(copy)
    return StudyOfTrials(study, scored_there)


def _score(trial: FrozenTrial, budget: int) -> float | None:
    """None also for a trial that failed later, or does not keep the guard: it would not have won."""
    score = trial.intermediate_values.get(budget)
    usable = trial.state.name != "FAIL" and guard_holds(trial)
    return score if usable and score is not None and math.isfinite(score) else None
