"""The attempts of a trial, which a driver's death or Ctrl-C cuts, as the one trial that they are to a person.

A trial that was cut goes on under its number. Earlier versions told it FAIL and queued another, which CONTINUES it and
takes over its folder: what they left is read here too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial, TrialState

# User attributes. INTERRUPTED: by a person, just now; DEATHS: of its driver; CONTINUED: how often, whyever it was cut
CONTINUES, FOLDER, INTERRUPTED, DEATHS, CONTINUED = "continues", "folder", "interrupted", "deaths", "continued"


def ancestry(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> Iterator[FrozenTrial]:
    """The trial, the one that it continues, and so on."""
    yield trial
    while (number := trial.user_attrs.get(CONTINUES)) is not None:
        trial = trials[number]
        yield trial


def first_number(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The number that a person knows a trial by: its first attempt's."""
    return int(list(ancestry(trials, trial))[-1].number)


def deaths_of(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """How often the driver died under a trial that runs in the storage, and no longer does."""
    return sum(own_deaths(one) for one in ancestry(trials, trial))


def own_deaths(trial: FrozenTrial) -> int:
    """The same, without those of the trials that it continues."""
    return int(trial.user_attrs.get(DEATHS, 0)) + (not trial.user_attrs.get(INTERRUPTED, False))


def times_continued(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    earlier = len(list(ancestry(trials, trial))) - 1
    return int(max(earlier, trial.user_attrs.get(CONTINUED, 0)))


def folded(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """A trial and those that continue it as one, the last with the number of the first; RUNNING if it was cut."""
    continued, found = {trial.user_attrs.get(CONTINUES) for trial in trials}, []
    for trial in trials:
        if trial.number not in continued:
            one = copy.copy(trial)
            one.number = first_number(trials, trial)
            one.user_attrs = {**trial.user_attrs, CONTINUED: times_continued(trials, trial)}
            if trial.state == TrialState.WAITING and trial.user_attrs.get(FOLDER):
                one.state = TrialState.RUNNING
            found.append(one)
    return sorted(found, key=lambda trial: trial.number)
