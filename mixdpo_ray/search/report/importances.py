"""Which settings separate the best trials from the rest, by Optuna's PED-ANOVA (which needs no scikit-learn)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import Target, by_score, objectives, scored, short_names, too_few, varied
from mixdpo_ray.search.report.style import BLUE, Figure, drawing

if TYPE_CHECKING:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# Complete trials: below the first it is noise. In 60 random searches on a made-up hill over four settings, the one that
# matters most came out first in 58 % at 8 trials, 63 % at 16, 93 % at 30 and 98 % at 60, with the better half against
# the rest; with Optuna's default, the best tenth, in 40, 50, 58 and 88 %.
FEW, ENOUGH = 4, 30
BEST = 0.5


def importances(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("importances", "Which settings mattered")
    done = scored(study)
    telling = [one for one in objectives(facts) if _top_differs(done, one)]
    if reason := _reason(done, telling):
        return figure.without(reason)
    from optuna.visualization import plot_param_importances

    drawings, short = [], short_names(sorted({name for trial in done for name in trial.params}))
    for objective in telling:
        with _without_known_warnings():
            target = _downward(objective)
            plot = plot_param_importances(study, _evaluator(), target=target, target_name=objective.words)
        bars = plot.data[0]
        bars.update(marker={"color": BLUE}, hovertemplate="%{y}: %{x:.2f}<extra></extra>", width=0.62)
        bars.y = [short[name] for name in bars.y]
        plot.update_xaxes(title_text=None, range=[0, 1.15 * max(bars.x)])
        plot.update_yaxes(title_text=None, ticksuffix="  ", showgrid=False, ticks="")
        drawings.append(drawing(plot, 60 + 34 * len(bars.y), title=objective.title))
    hint = "" if len(done) >= ENOUGH else "; with so few trials it is a hint, not a finding"
    return figure.drawn(
        f"The longer the bar, the more that setting alone tells the better half of the {len(done)} compared trials "
        f"from the rest{by_score(facts)}; all bars together are 1{hint}.",
        drawings,
    )


def importance_by_setting(study: Study, facts: StudyFacts) -> dict[str, float]:
    """The importance of each setting for the first metric; empty where it cannot be told."""
    done, first = scored(study), objectives(facts)[0]
    if _reason(done, [first] if _top_differs(done, first) else []):
        return {}
    from optuna.importance import get_param_importances

    with _without_known_warnings():
        return dict(get_param_importances(study, evaluator=_evaluator(), target=_downward(first)))


def _reason(done: Sequence[FrozenTrial], telling: Sequence[Target]) -> str | None:
    if len(done) < FEW:
        return too_few(done, FEW)
    if len(varied(done)) < 2:
        return "fewer than two settings differ between the compared trials"
    return None if telling else "too many trials share the same score"


def _top_differs(done: Sequence[FrozenTrial], objective: Target) -> bool:
    """Ties with the last of the better half belong to it; where all do, there is no rest."""
    ranked = sorted((objective.of(trial) for trial in done), reverse=objective.upward)
    return bool(ranked) and objective.better(ranked[math.ceil(BEST * len(ranked)) - 1], ranked[-1])


def _evaluator() -> PedAnovaImportanceEvaluator:
    from optuna.importance import PedAnovaImportanceEvaluator

    return PedAnovaImportanceEvaluator(target_quantile=BEST)


def _downward(objective: Target) -> Callable[[FrozenTrial], float] | None:
    """PED-ANOVA takes any target of ours for one where less is better."""
    if objective.without_export or not objective.upward:
        return objective.target
    return lambda trial: -objective.of(trial)


@contextmanager
def _without_known_warnings() -> Iterator[None]:
    """Silence warnings of what is heeded here: a target's sign, and values of a setting that hardly any trial has."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="PedAnovaImportanceEvaluator computes the importances", category=UserWarning
        )
        warnings.filterwarnings("ignore", message="Some regimes for parameter", category=UserWarning)
        yield
