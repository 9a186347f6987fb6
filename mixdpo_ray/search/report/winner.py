"""The winner in words: its scores, how sure they are, and how it differs from the recipe's own settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixdpo_ray.intervals import NORMAL
from mixdpo_ray.search.report.comparable import comparable
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.importances import importance_by_setting
from mixdpo_ray.search.report.scores import (
    ACCURACY,
    DRIFT,
    Target,
    error_interval,
    guard_holds,
    held_out_pairs,
    metrics_of,
    number_text,
    objectives,
    scored,
    setting_text,
    settings_shown,
    standard_error,
    trial_by_number,
    what_is_counted,
    winner_of,
    words_for_list,
)
from mixdpo_ray.search.report.style import STATE_WORDS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

OBJECTIVE = "objective.name"
NAMED_SETTINGS = 6  # trials that a sentence lists before it counts


@dataclass(frozen=True)
class Score:
    words: str
    value: str
    doubt: str | None  # "± 0.0199"
    interval: str | None  # of 95 %
    gain: str | None  # over the recipe's own settings
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    name: str
    winner: str
    own: str | None
    importance: float | None


@dataclass(frozen=True)
class Winner:
    number: int
    scores: tuple[Score, ...]
    settings: tuple[Setting, ...]
    compared: bool  # with the recipe's own settings
    front: int  # trials on the Pareto front, it among them; 1 for one metric
    guard: str | None
    after: str  # the rung that importances are of, " after rung 1 of 2"; empty where they are of whole trials

    @property
    def weighed(self) -> bool:
        """Whether the importance of any setting is known."""
        return any(setting.importance is not None for setting in self.settings)


def describe_winner(study: Study, facts: StudyFacts) -> Winner | None:
    winner, done = winner_of(study, facts), scored(study)
    if winner is None:
        return None
    own = trial_by_number(study, 0) if winner.number else None
    compared = comparable(study, facts)
    return Winner(
        winner.number,
        tuple(_score(objective, winner, own, done) for objective in objectives(facts)),
        tuple(_settings(winner, own, importance_by_setting(compared.study, compared.facts))),
        own is not None,
        len(study.best_trials) if len(facts.metrics) > 1 else 1,
        _guard(winner, facts),
        compared.facts.after,
    )


def _guard(winner: FrozenTrial, facts: StudyFacts) -> str | None:
    if facts.guard is None:
        return None
    drift = metrics_of(winner).get(DRIFT)
    known = "" if drift is None or DRIFT not in facts.guard else f" with {number_text(drift)}"
    return f"It {'keeps' if guard_holds(winner) else 'breaks'} the guard {facts.guard}{known}."


def _score(objective: Target, winner: FrozenTrial, own: FrozenTrial | None, done: Sequence[FrozenTrial]) -> Score:
    value, error = objective.of(winner), standard_error(objective, winner)
    gain = None
    if own is not None and own in done:
        gain = f"{value - objective.of(own):+.4f}" if error else f"{value - objective.of(own):+.4g}"
    sentences = [_doubt(objective, winner, error), _comparison(objective, winner, own, done), across(objective, done)]
    if objective.without_export:
        rivals = [trial for trial in done if guard_holds(trial)]
        sentences += [_close(objective, winner, rivals), _luck(rivals)]
    return Score(
        objective.words,
        objective.text(value),
        f"± {_error_text(error)}" if error else None,
        _interval_text(objective, winner),
        gain,
        tuple(sentence for sentence in sentences if sentence),
    )


def rivals_of_winner(study: Study, facts: StudyFacts) -> str | None:
    """Which trials the study cannot tell from the winner, in a sentence; none where there is nothing to say."""
    winner, (first, *others) = winner_of(study, facts), objectives(facts)
    if winner is None or others:
        return None
    return _close(first, winner, [trial for trial in scored(study) if guard_holds(trial)])


def doubt_across_objectives(study: Study, facts: StudyFacts) -> str | None:
    """A sentence, where objectives were compared by a metric that compares them badly."""
    told = [across(objective, scored(study)) for objective in objectives(facts)]
    return next(filter(None, told), None) if len(told) == 1 else None


def across(objective: Target, done: Sequence[FrozenTrial]) -> str | None:
    compared = {str(settings_shown(trial).get(OBJECTIVE)) for trial in done}
    if len(compared) < 2 or not objective.metric.startswith(ACCURACY):
        return None
    return (
        "Held-out accuracy compares objectives badly: some lead it and write worse answers. tune.metric judge/win_rate "
        "decides by what models write (answers.judge says who judges)."
    )


def doubt_of_winner(study: Study, facts: StudyFacts, number: int) -> str:
    """How sure the winner's score in a metric is, in a few words; empty where that is not known."""
    winner, metric = winner_of(study, facts), objectives(facts)[number]
    ends = None if winner is None else _interval_text(metric, winner)
    pairs = None if winner is None else held_out_pairs(winner, metric.metric)
    return f"95 % interval {ends} of {pairs:,} {what_is_counted(metric.metric)}" if ends and pairs else ""


def _error_text(error: float) -> str:
    return f"{error:.4f}" if error < 1 else f"{error:.3g}"


def _doubt(objective: Target, winner: FrozenTrial, error: float | None) -> str:
    pairs = held_out_pairs(winner, objective.metric)
    if error is None or pairs is None:
        return "How far chance alone moves it is not known from one training."
    return (
        f"Measured on {pairs:,} {what_is_counted(objective.metric)}; ± is one standard error, and the 95 % interval "
        "is where endless such ones would put it."
    )


def _interval_text(objective: Target, winner: FrozenTrial) -> str | None:
    ends = error_interval(objective, winner)
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else None


def _comparison(
    objective: Target, winner: FrozenTrial, own: FrozenTrial | None, done: Sequence[FrozenTrial]
) -> str | None:
    if winner.number == 0:
        return "These are the recipe's own settings: no other trial was better."
    if own is None:
        return "There is no trial with the recipe's own settings to compare with."
    if own not in done:
        return (
            f"The recipe's own settings (trial 0) have no final score to compare with: {STATE_WORDS[own.state.name]}."
        )
    mine, theirs = objective.of(winner), objective.of(own)
    way = "as good as" if mine == theirs else "better than" if objective.better(mine, theirs) else "worse than"
    sentence = f"{way.capitalize()} the recipe's own settings (trial 0), which reached {objective.text(theirs)}"
    errors = [standard_error(objective, trial) for trial in (winner, own)]
    if None in errors or not (both := math.hypot(*(error or 0 for error in errors))):
        return f"{sentence}."
    ratio = abs(mine - theirs) / both
    weight = "hardly chance" if ratio >= NORMAL else "perhaps chance" if ratio >= 1 else "no more than chance gives"
    return (
        f"{sentence}: {ratio:.1f} standard errors of the difference, {weight} (a cautious count, as both were judged "
        "on the same pairs)."
    )


def _close(objective: Target, winner: FrozenTrial, done: Sequence[FrozenTrial]) -> str | None:
    error = standard_error(objective, winner)
    if not error or len(done) < 2:
        return None
    value = objective.of(winner)
    near = [trial.number for trial in done if trial is not winner and abs(objective.of(trial) - value) <= error]
    if not near:
        return "No other trial comes within one standard error of it."
    if len(near) > NAMED_SETTINGS:
        return f"{len(near)} other trials are within one standard error of it; this study cannot tell them apart."
    names = f"trial{'s' if len(near) > 1 else ''} {words_for_list(sorted(near))}"
    return f"Within one standard error of it: {names}; this study cannot tell them apart."


def _luck(done: Sequence[FrozenTrial]) -> str | None:
    if len(done) < 2:
        return None
    return (
        f"As the best of {len(done)} scores on the same pairs it is a little lucky: expect slightly less on new pairs."
    )


def _settings(winner: FrozenTrial, own: FrozenTrial | None, weights: dict[str, float]) -> Sequence[Setting]:
    mine, theirs = settings_shown(winner), settings_shown(own) if own is not None else {}
    by_setting = {name.partition(" [")[0]: weight for name, weight in reversed(weights.items())}
    return [
        Setting(
            name,
            setting_text(mine[name]) if name in mine else "-",
            None if own is None else setting_text(theirs[name]) if name in theirs else "-",
            weights.get(name, by_setting.get(name)),
        )
        for name in {**mine, **theirs}
    ]
