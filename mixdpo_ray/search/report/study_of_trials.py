"""A study that holds given trials under the numbers that they have: what Optuna's figures draw."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from mixdpo_ray.search.attempts import folded


class StudyOfTrials(optuna.Study):  # type: ignore[misc]
    """Kept in memory, and for reading: Optuna itself would number what is added to a study."""

    def __init__(self, like: optuna.Study, trials: Sequence[FrozenTrial]):
        kept = optuna.storages.InMemoryStorage()
        name = optuna.create_study(storage=kept, directions=like.directions).study_name
        super().__init__(name, kept)
        self.given = trials

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        found = [trial for trial in self.given if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


def folded_study(study: optuna.Study) -> optuna.Study:
    """The study in which a trial and those that continue it are one."""
    return StudyOfTrials(study, folded(study.get_trials(deepcopy=False)))


def renumbered(study: optuna.Study) -> optuna.Study:
    """The same trials counted from 0, for a figure that takes their numbers for positions in a list."""
    trials = [copy.copy(trial) for trial in study.get_trials(deepcopy=False)]
    for position, trial in enumerate(trials):
        trial.number = position
    return StudyOfTrials(study, trials)
