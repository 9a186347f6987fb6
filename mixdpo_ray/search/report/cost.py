"""What the trials cost, and when they ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.scores import hover_text, trials_of
from mixdpo_ray.search.report.style import GREY, STATE_WORDS, STATES, Figure, drawing
from mixdpo_ray.wording import duration_text

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def cost(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("cost", "What each trial cost")
    trials = [trial for trial in trials_of(study) if trial.user_attrs.get("seconds") or trial.user_attrs.get("pairs")]
    if not trials:
        return figure.without("no trial got as far as to cost anything")
    from plotly.subplots import make_subplots

    plot = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for state, color in STATES.items():
        group = [trial for trial in trials if trial.state.name == state]
        for row, (measure, digits) in enumerate((("seconds", ",.1f"), ("pairs", ",")), start=1):
            if group:
                plot.add_bar(
                    x=[trial.number for trial in group],
                    y=[trial.user_attrs.get(measure) for trial in group],
                    name=STATE_WORDS[state], legendgroup=state, showlegend=row == 1, marker_color=color, width=0.7,
                    hovertemplate=f"trial %{{x}}: %{{y:{digits}}} {measure}<extra></extra>", row=row, col=1,
                )  # fmt: skip
    plot.update_yaxes(title_text="seconds", row=1, col=1)
    plot.update_yaxes(title_text="pairs trained", row=2, col=1)
    plot.update_xaxes(title_text="trial", row=2, col=1)
    plot.update_layout(barmode="overlay")
    return figure.drawn(_sum(trials), [drawing(plot, 420)])


def _sum(trials: Sequence[FrozenTrial]) -> str:
    def total(measure: str, group: Sequence[FrozenTrial]) -> float:
        return float(sum(trial.user_attrs.get(measure) or 0 for trial in group))

    ended = [trial for trial in trials if trial.state.name in ("PRUNED", "FAIL")]
    seconds, pairs = total("seconds", trials), total("pairs", trials)
    share = (
        f"; {total('seconds', ended) / seconds:.0%} of the time went to trials that were stopped early or failed"
        if seconds
        else ""
    )
    return f"Together the trials took {duration_text(seconds)} and trained {pairs:,.0f} pairs{share}."


def timeline(study: Study, facts: StudyFacts) -> Figure:
    figure = Figure("timeline", "When each trial ran")
    trials = [trial for trial in trials_of(study) if trial.datetime_start is not None]
    if not trials:
        return figure.without("no trial has started")
    from optuna.visualization import plot_timeline

    plot = plot_timeline(study)
    for trace in plot.data:
        state = trace.name
        trace.update(name=STATE_WORDS.get(state, "breaks the guard"), marker_color=STATES.get(state, GREY))
        trace.update(text=[hover_text(study, number) for number in trace.y], hovertemplate="%{text}<extra></extra>")
    plot.update_xaxes(title_text=None)
    plot.update_yaxes(title_text="trial", autorange="reversed")
    plot.update_layout(bargap=0.35)
    height = min(720, 130 + 16 * len(trials))
    return figure.drawn(
        "Bars side by side ran at the same time; a gap is time in which nothing ran.", [drawing(plot, height)]
    )
