"""All trials, the best first, and those that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import (
    ACCURACY,
    DRIFT,
    Target,
    guard_holds,
    held_out_pairs,
    metrics_of,
    objectives,
    scored,
    setting_text,
    settings_shown,
    short_names,
    standard_error,
    trials_of,
)
from mixdpo_ray.search.report.style import STATE_WORDS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STATE_ORDER = ("COMPLETE", "PRUNED", "RUNNING", "WAITING", "FAIL")


@dataclass(frozen=True)
class TableRow:
    number: int
    state: str
    word: str
    wins: bool
    continued: int  # how often its driver stopped, and it went on
    breaks_guard: bool
    settings: tuple[str, ...]
    scores: tuple[str, ...]
    drift: str
    seconds: str


@dataclass(frozen=True)
class Table:
    settings: tuple[tuple[str, str], ...]  # (full name, short name)
    scores: tuple[str, ...]
    rows: tuple[TableRow, ...]
    pairs: int | None  # held out, where it is known


@dataclass(frozen=True)
class Failure:
    number: int
    settings: tuple[tuple[str, str], ...]
    reason: str


def trial_table(study: Study, facts: StudyFacts) -> Table:
    trials = trials_of(study)
    names = list(dict.fromkeys(name for trial in trials for name in settings_shown(trial)))
    short = short_names(names)
    return Table(
        tuple((name, short[name]) for name in names),
        tuple(_score_names(facts)),
        tuple(_row(trial, names, facts) for trial in _ranked(study, facts)),
        max((held_out_pairs(trial, ACCURACY) or 0 for trial in trials), default=0) or None,
    )


def _score_names(facts: StudyFacts) -> list[str]:
    wanted = objectives(facts)
    if len(wanted) > 1:
        return [objective.words for objective in wanted]
    *early, whole = sorted(budget for budget, _ in facts.rungs) or [1]
    return [f"rung {budget}/{whole}" for budget in early] + ["whole" if early else wanted[0].words]


def _ranked(study: Study, facts: StudyFacts) -> Sequence[FrozenTrial]:
    done, first = {trial.number for trial in scored(study)}, objectives(facts)[0]
    sign = -1 if first.upward else 1

    def rank(trial: FrozenTrial) -> tuple[bool, int, bool, int, float, int]:
        seen = trial.intermediate_values
        reached = max(seen, default=0)
        score = first.of(trial) if trial.number in done else seen.get(reached, 0.0)
        order = STATE_ORDER.index(trial.state.name)
        return (
            trial.number != facts.best, order, not guard_holds(trial), -reached,
            sign * score if score == score else 0.0, trial.number,
        )  # fmt: skip

    return sorted(trials_of(study), key=rank)


def _row(trial: FrozenTrial, names: Sequence[str], facts: StudyFacts) -> TableRow:
    chosen, drift, seconds = settings_shown(trial), metrics_of(trial).get(DRIFT), trial.user_attrs.get("seconds")
    return TableRow(
        trial.number,
        trial.state.name.lower(),
        STATE_WORDS[trial.state.name],
        trial.number == facts.best,
        trial.user_attrs.get("continued", 0),
        not guard_holds(trial),
        tuple(setting_text(chosen[name]) if name in chosen else "" for name in names),
        tuple(_scores(trial, facts)),
        "" if drift is None else f"{drift:,.2f}",
        "" if seconds is None else f"{seconds:,.1f}",
    )


def _scores(trial: FrozenTrial, facts: StudyFacts) -> list[str]:
    wanted = objectives(facts)
    if len(wanted) > 1:
        return [f"{one.text(one.of(trial))}{_error(trial, one)}" if trial.values else "" for one in wanted]
    *early, whole = sorted(budget for budget, _ in facts.rungs) or [1]
    seen = {budget: wanted[0].text(value) for budget, value in trial.intermediate_values.items()}
    if trial.state.name == "COMPLETE":
        seen[whole] = f"{wanted[0].text(wanted[0].of(trial))}{_error(trial, wanted[0])}"
    return [seen.get(budget, "") for budget in (*early, whole)]


def _error(trial: FrozenTrial, metric: Target) -> str:
    error = standard_error(metric, trial)
    return f" ± {metric.text(error)}" if error else ""


def failures(study: Study) -> list[Failure]:
    return [
        Failure(
            trial.number,
            tuple((name, setting_text(value)) for name, value in settings_shown(trial).items()),
            str(trial.user_attrs.get("reason") or "no reason was recorded"),
        )
        for trial in trials_of(study)
        if trial.state.name == "FAIL"
    ]


def state_counts(study: Study) -> list[tuple[str, int]]:
    counts = Counter(trial.state.name for trial in trials_of(study))
    return [(STATE_WORDS[state], counts[state]) for state in STATE_ORDER if counts[state]]
