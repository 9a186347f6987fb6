"""The score over two settings at once: threshold and beta where both are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import crosses, objectives, same_score, scored, too_few, varied, winner_of
from mixdpo_ray.search.report.style import CROSS, Figure, deepened_scale, drawing, plain_ticks, ring

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

FEW = 4
TELLING = {
    "curriculum.threshold.value": "threshold",
    "curriculum.threshold.hard_fraction": "hard fraction",
    "curriculum.threshold.hard_count": "hard count",
    "objective.beta": "beta",
    "train.optimizer.learning_rate": "learning rate",
    "train.schedule.stage2_lr_ratio": "the second stage's rate",
}


def score_map(study: Study, facts: StudyFacts) -> Figure:
    done = scored(study)
    winner = winner_of(study, facts)
    pair = pair_to_map(done, winner)
    if pair is None:
        figure = Figure("map", "Two settings together")
        return figure.without(
            too_few(done, FEW) if len(done) < FEW else f"no two settings differ together in {FEW} scored trials"
        )
    if (reason := same_score(done, facts)) is not None:
        return Figure("map", "Two settings together").without(reason)
    from optuna.visualization import plot_contour

    x, y = sorted(pair)  # as Optuna does
    names = [TELLING.get(_setting(name), name) for name in pair]
    figure = Figure("map", f"{names[0][:1].upper()}{names[0][1:]} and {names[1]} together")
    title = {"text": facts.after.strip(), "side": "right"} if facts.after else None
    drawings = []
    for objective in objectives(facts):
        plot = plot_contour(study, [x, y], target=objective.target, target_name=objective.words)
        for trace in plot.data:
            if trace.type == "contour" and trace.colorscale:
                trace.update(colorscale=deepened_scale(trace.colorscale), reversescale=not objective.upward)
                trace.update(colorbar={"title": title, "thickness": 10, "outlinewidth": 0}, line={"width": 0.5})
            elif trace.type == "scatter":
                dot = {"size": 8, "color": "black", "line": {"width": 1.5, "color": "white"}}
                trace.marker.update({**CROSS, "color": "white"} if trace.name == "Infeasible Trial" else dot)
        for axis, name in ((plot.layout.xaxis, x), (plot.layout.yaxis, y)):
            plain_ticks(axis, [trial.params[name] for trial in done if name in trial.params])
        if winner is not None and {x, y} <= set(winner.params):
            ring(plot, winner.params[x], winner.params[y])
        drawings.append(drawing(plot, 440, title=objective.title))
    dot_is = "trial that came so far" if facts.after else "complete trial"
    return figure.drawn(
        f"Colour is the score{facts.after}, each dot a {dot_is} and the red ring the winner; between the dots the "
        f"colour is guessed, so trust it only where dots are near{crosses(done)}.",
        drawings,
    )


def pair_to_map(done: Sequence[FrozenTrial], winner: FrozenTrial | None) -> tuple[str, str] | None:
    """The most telling two settings that differ in the same trials, of those that the winner has if it can be."""

    def rank(name: str) -> tuple[bool, int, int, str]:
        missing = winner is not None and name not in winner.params
        return missing, _rank(name), -sum(name in trial.params for trial in done), name

    names = sorted(varied(done), key=rank)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            both = [trial for trial in done if {first, second} <= set(trial.params)]
            if len(both) >= FEW and {first, second} <= set(varied(both)):
                return first, second
    return None


def _rank(name: str) -> int:
    order = list(TELLING)
    return order.index(_setting(name)) if _setting(name) in order else len(order)


def _setting(name: str) -> str:
    """ "objective.beta [dpo]" is one of several betas."""
    return name.partition(" [")[0]
