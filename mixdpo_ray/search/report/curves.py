"""How the trials learned, from the metrics.jsonl of the highest rung that each one reached."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mixdpo_ray import storage
from mixdpo_ray.intervals import NORMAL
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import ACCURACY, held_out_pairs, objectives, scored, trials_of
from mixdpo_ray.search.report.style import INK, RED, Figure, drawing
from mixdpo_ray.training.metrics import STEP_METRICS, read_lines

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

MOST, POINTS = 12, 150  # curves in one figure, and points of each loss curve: the eye cannot use more
COLORS = (
    "#1b6ca8", "#3f8f5f", "#c98a12", "#7a5ea8", "#2f95a5", "#b5537a",
    "#6f7a86", "#8a6d3b", "#5f8fd0", "#7f9c3a", "#a8714f",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    trial: int
    accuracy: tuple[tuple[float, float], ...]  # (share of the curriculum, value)
    loss: tuple[tuple[float, float | None], ...]
    switch: float | None  # share at which hard pairs begin


def learning_curves(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("curves", "How the trials learned")
    found = (read_curve(trial, facts) for trial in by_interest(study, facts))
    curves = list(itertools.islice((curve for curve in found if curve is not None), MOST))
    if not curves:
        return figure.without("no trial left a metrics.jsonl with a step in it")
    from plotly.subplots import make_subplots

    plot = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    colors = iter(COLORS)
    for curve in sorted(curves, key=lambda curve: (curve.trial == facts.best, curve.trial)):  # the winner on top
        _add(plot, curve, RED if curve.trial == facts.best else INK if curve.trial == 0 else next(colors), facts)
    plot.update_yaxes(title_text="held-out accuracy", row=1, col=1)
    plot.update_yaxes(title_text="training loss", row=2, col=1)
    plot.update_xaxes(title_text="share of the curriculum", tickformat=".0%", range=[-0.01, 1.01], row=2, col=1)
    plot.update_xaxes(range=[-0.01, 1.01], showticklabels=False, row=1, col=1)
    plot.update_layout(legend={"title": {"text": "trial "}})
    left = len(trials_of(study)) - len(curves)
    return figure.drawn(
        "From clear pairs to ambiguous ones: a diamond marks where a trial's hard pairs begin (from there its loss is "
        "another quantity) and the dashed line where the winner, in red, does"
        f"{f' ({len(curves)} of {left + len(curves)} trials)' if left else ''}.{_chance(study)}",
        [drawing(plot, 600)],
    )


def _chance(study: Study) -> str:
    pairs = max((held_out_pairs(trial, ACCURACY) or 0 for trial in trials_of(study)), default=0)
    if not pairs:
        return ""
    half = NORMAL * math.sqrt(0.25 / pairs)
    return f" Accuracies are of {pairs:,} held-out pairs: the draw of these alone moves one by up to {half:.2f}."


def by_interest(study: Study, facts: StudyFacts) -> Sequence[FrozenTrial]:
    """The winner, the recipe's own settings, complete trials by their first score, then those that got furthest."""
    first, done = objectives(facts)[0], {trial.number for trial in scored(study)}

    def interest(trial: FrozenTrial) -> tuple[bool, bool, bool, float, int]:
        complete = trial.number in done
        score = -first.of(trial) if complete and first.upward else first.of(trial) if complete else 0.0
        reached = max(trial.intermediate_values, default=0)
        return (
            trial.number != facts.best,
            trial.number != 0,
            not complete,
            score - (0 if complete else reached),
            trial.number,
        )

    return sorted(trials_of(study), key=interest)


def read_curve(trial: FrozenTrial, facts: StudyFacts) -> Curve | None:
    folder = storage.join(facts.folder, trial.user_attrs.get("folder", f"trials/{trial.number:04d}"))
    for budget, steps in sorted(facts.rungs, reverse=True):
        lines = read_lines(storage.join(folder, f"rung-{budget}", STEP_METRICS))
        trained = [line for line in lines if "kind" not in line and line.get("loss") is not None]
        if trained:
            ended = budget in trial.intermediate_values or trial.state.name == "COMPLETE"
            last = max(line["step"] for line in trained) + 1
            return _curve(trial.number, lines, trained, last if ended else max(last, steps))
    return None


def _curve(trial: int, lines: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]], steps: int) -> Curve:
    evaluated = [line for line in lines if line.get("kind") == "eval" and line.get(ACCURACY) is not None]
    hard = [line["step"] for line in trained if line.get("stage") == "hard"]
    return Curve(
        trial,
        tuple((line["step"] / steps, line[ACCURACY]) for line in evaluated),
        tuple(_thinned(trained, steps)),
        min(hard) / steps if hard else None,
    )


def _thinned(trained: Sequence[Mapping[str, Any]], steps: int) -> list[tuple[float, float | None]]:
    """Means of neighbouring steps, never over the switch of stages."""
    points: list[tuple[float, float | None]] = []
    size = -(-len(trained) // POINTS)
    for _, stage in itertools.groupby(trained, key=lambda line: line.get("stage")):
        same = list(stage)
        if points:
            points.append((points[-1][0], None))  # the line is broken there
        for group in (same[start : start + size] for start in range(0, len(same), size)):
            shares = [(line["step"] + 1) / steps for line in group]
            points.append((fmean(shares), fmean(line["loss"] for line in group)))
    return points


def _add(plot: Any, curve: Curve, color: str, facts: StudyFacts) -> None:
    wins = curve.trial == facts.best
    name = str(curve.trial) + (" winner" if wins else " recipe" if curve.trial == 0 else "")
    look = {"color": color, "width": 3.2 if wins else 1.3}
    shown = {
        "name": name,
        "legendgroup": name,
        "opacity": 1 if wins else 0.75,
        "legendrank": 1 if wins else 2 + curve.trial,
    }
    for row, points in enumerate((curve.accuracy, curve.loss), start=1):
        x, y = zip(*points, strict=True) if points else ((), ())
        plot.add_scatter(
            x=x,
            y=y,
            mode="lines+markers" if row == 1 else "lines",
            marker={"size": 7 if wins else 4},
            line=look,
            showlegend=row == 2,
            row=row,
            col=1,
            hovertemplate=f"trial {name}: %{{y:.4g}}<extra></extra>",
            **shown,
        )
    after = [point for point in curve.loss if curve.switch is not None and point[0] > curve.switch and point[1]]
    if after:
        plot.add_scatter(
            x=[after[0][0]],
            y=[after[0][1]],
            mode="markers",
            row=2,
            col=1,
            showlegend=False,
            marker={"symbol": "diamond", "size": 12 if wins else 8, "color": color},
            hovertemplate=f"trial {name}: hard pairs begin<extra></extra>",
            **shown,
        )
    if wins and curve.switch is not None:
        plot.add_vline(curve.switch, line={"color": color, "width": 1.5, "dash": "dash"}, row="all", col=1)
        plot.add_annotation(
            x=curve.switch,
            y=1,
            yref="y domain",
            text=" hard pairs begin",
            xanchor="left",
            yanchor="top",
            showarrow=False,
            font={"color": color},
            row=1,
            col=1,
        )
