"""Optuna's own figures of a search, or a sentence where there is too little to draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import (
    by_score,
    crosses,
    hover_text,
    objectives,
    same_score,
    scored,
    short_names,
    too_few,
    trials_of,
    varied,
    winner_of,
)
from mixdpo_ray.search.report.style import (
    BLUE,
    CROSS,
    GREY,
    QUIET,
    RED,
    STATES,
    Figure,
    clipped,
    deepened,
    deepened_scale,
    drawing,
    plain_ticks,
    ring,
)

if TYPE_CHECKING:
    from optuna.study import Study


def history(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("history", "How the score rose")
    done = scored(study)
    if len(done) < 2:
        return figure.without(too_few(done, 2))
    if (reason := same_score(done, facts)) is not None:
        return figure.without(reason)
    from optuna.visualization import plot_optimization_history

    from mixdpo_ray.search.report.study_of_trials import renumbered

    drawings, winner = [], winner_of(study, facts)
    numbers = [trial.number for trial in trials_of(study)]
    for objective in objectives(facts):
        plot = plot_optimization_history(renumbered(study), target=objective.target, target_name=objective.words)
        for trace in plot.data:
            trace.x = [numbers[int(position)] for position in trace.x]
            trace.update(marker=CROSS if trace.name == "Infeasible Trial" else {"size": 8, "color": BLUE})
            trace.update(line={"shape": "hv", "width": 2, "color": RED}, showlegend=False)
            trace.update(name="best so far" if trace.mode == "lines" else "a trial")
        if winner is not None:
            ring(plot, winner.number, objective.of(winner))
        plot.update_xaxes(title_text="trial")
        drawings.append(drawing(plot, 360, title=objective.title))
    line = "the line is the best score so far and " if len(facts.metrics) == 1 else ""
    return figure.drawn(
        f"Each dot is a trial that ran to the end, {line}the red ring the winner{crosses(done)}.", drawings
    )


def parallel_coordinates(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("parallel", "Every compared trial as one line")
    done = scored(study)
    names = sorted({name for trial in done for name in trial.params})
    if len(done) < 2:
        return figure.without(too_few(done, 2))
    if (reason := same_score(done, facts)) is not None:
        return figure.without(reason)
    if not names:
        return figure.without("no setting was searched")
    from optuna.visualization import plot_parallel_coordinate

    wanted = objectives(facts)
    plot = plot_parallel_coordinate(study, target_name=wanted[0].words)
    short = short_names(names)
    labels = [one.words for one in wanted] + [short[name] for name in names]
    plot.update_xaxes(ticktext=[_wrapped(label) for label in labels], ticks="", showline=False)
    for trace in plot.data:
        if trace.mode == "lines" and trace.line.color.startswith("rgb"):
            trace.update(line={"width": 2, "color": deepened(trace.line.color)}, opacity=0.8)
        trace.update(marker={"showscale": False})
    plot.update_layout(annotations=_apart(plot.layout.annotations), showlegend=False)
    strong = "the best trials have" if len(wanted) == 1 else "trials on the front have"
    dotted = "; dotted lines break the guard" if any(trial.constraints for trial in done) else ""
    none = "; None: it has no such setting" if any(set(names) - set(trial.params) for trial in done) else ""
    return figure.drawn(
        f"Follow a line to read a trial's settings: {strong} the strongest colour{by_score(facts)}, and where strong "
        f"lines meet, a setting is decided{dotted}{none}.",
        [drawing(plot, 400, min_width=115 * len(labels), left=70)],
    )


def _apart(ticks: Sequence[Any]) -> list[Any]:
    """Tick labels of the parallel axes, without those that the ends of their axis would cover."""
    kept: list[Any] = []
    for tick in sorted(ticks, key=lambda tick: 0.01 < tick.y < 0.99):  # the ends first
        if all(tick.x != other.x or abs(tick.y - other.y) > 0.05 for other in kept):
            tick.update(text=clipped(tick.text), bgcolor="rgba(255,255,255,0.7)", font={"size": 11, "color": "#3d4855"})
            kept.append(tick)
    return kept


def _wrapped(label: str) -> str:
    """Break a label into two lines where it has words, so that neighbours do not meet."""
    words = label.split(" ")
    half = (len(words) + 1) // 2
    return "<br>".join(filter(None, [" ".join(words[:half]), " ".join(words[half:])]))


def slices(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("slices", "Each setting on its own")
    done = scored(study)
    if len(done) < 2:
        return figure.without(too_few(done, 2))
    if (reason := same_score(done, facts)) is not None:
        return figure.without(reason)
    if not (names := varied(done)):
        return figure.without("no setting differs between the compared trials")
    from optuna.visualization import plot_slice

    drawings, short = [], short_names(names)
    winner = winner_of(study, facts)
    for objective in objectives(facts):
        low, high = min(map(objective.of, done)), max(map(objective.of, done))
        room = 0.08 * (high - low or abs(high) or 1)
        for name in names:
            plot = plot_slice(study, [name], target=objective.target, target_name=objective.words)
            for dots in plot.data:
                dots.marker.update(showscale=False, size=8)
                if dots.marker.colorscale:
                    dots.marker.colorscale = deepened_scale(dots.marker.colorscale)
                else:
                    dots.marker.update(CROSS)
            plot.update_xaxes(title_text=None, nticks=6)
            plain_ticks(plot.layout.xaxis, [trial.params[name] for trial in done if name in trial.params], repr)
            plot.update_yaxes(title_text=facts.after.strip() or None, range=[low - room, high + room])
            if winner is not None and name in winner.params:
                value, named = winner.params[name], plot.layout.xaxis.type == "category"
                ring(plot, repr(value) if named else value, objective.of(winner))  # names as Optuna writes them
            title = short[name] if objective.without_export else f"{objective.words} by {short[name]}"
            drawings.append(drawing(plot, 230, title=title))
    return figure.drawn(
        f"The score{facts.after} against one setting at a time, later trials stronger in colour: a slope or a hump "
        f"means that the setting matters whatever the others are{crosses(done)}.",
        drawings,
        side_by_side=True,
    )


def rungs(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("rungs", "Who was stopped early, and when")
    if len(facts.metrics) > 1:
        return figure.without("a search for two metrics at once stops no trial early")
    if len(facts.rungs) < 2:
        return figure.without("every trial runs whole, there is one rung only")
    states = {trial.number: trial.state.name for trial in trials_of(study) if trial.intermediate_values}
    if not set(states.values()) & {"COMPLETE", "PRUNED", "RUNNING"}:
        return figure.without("no trial that counts has finished a rung")
    from optuna.visualization import plot_intermediate_values

    plot = plot_intermediate_values(study)
    for trace in plot.data:
        _dress_rung(trace, states, facts.best)
    whole = max(budget for budget, _ in facts.rungs)
    ticks = [f"{_rung_name(budget, whole)}<br>{steps} steps" for budget, steps in facts.rungs]
    plot.update_xaxes(type="log", tickvals=[budget for budget, _ in facts.rungs], ticktext=ticks)
    plot.update_layout(xaxis_title=None, yaxis_title=objectives(facts)[0].words)
    return figure.drawn(
        "At each rung a trial trains a thinner but whole curriculum from the start; yellow trials were stopped there, "
        "blue ones went on, red is the winner, and where lines cross an early rung would have misjudged.",
        [drawing(plot, 380)],
    )


def _rung_name(budget: int, whole: int) -> str:
    return "whole" if budget == whole else f"{budget}/{whole} of the pairs"


def _dress_rung(trace: Any, states: dict[int, str], best: int | None) -> None:
    number = int(trace.name.removeprefix("Trial"))
    wins = number == best
    color = RED if wins else STATES[states[number]]
    trace.update(name=f"trial {number}", opacity=1 if wins else 0.7, zorder=int(wins))
    trace.update(
        line={"color": color, "width": 3.5 if wins else 1.4}, marker={"color": color, "size": 9 if wins else 6}
    )


def pareto_front(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("pareto", "What one metric costs the other")
    if not (done := scored(study)):
        return figure.without(too_few(done, 1))
    from optuna.visualization import plot_pareto_front

    first, second = objectives(facts)
    plot = plot_pareto_front(study, target_names=[first.words, second.words])
    looks = {
        "Best Trial": ("no trial is better in both", BLUE, 11),
        "Infeasible": ("breaks the guard", GREY, 8),
        "Trial": ("another is better in both", QUIET, 8),
    }
    for trace in plot.data:
        name, color, size = next(look for kind, look in looks.items() if kind in trace.hovertemplate)
        trace.update(marker={"color": color, "size": size, "showscale": False}, name=name, showlegend=len(trace.x) > 0)
        if color == GREY:
            trace.update(marker=CROSS)
        trace.update(text=[hover_text(study, _number_in(text)) for text in trace.text])
    if (winner := winner_of(study, facts)) is not None:
        ring(plot, first.of(winner), second.of(winner))
    return figure.drawn(
        "Along the blue trials one metric can only be bought with the other; the red ring is the one that was chosen.",
        [drawing(plot, 420)],
    )


def _number_in(hover: str) -> int:
    """The number of the trial that Optuna's hover text describes: JSON, its lines joined by <br>."""
    return int(json.loads(hover.replace("<br>", "\n"), strict=False)["number"])
