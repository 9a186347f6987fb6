"""studies/<name>/report.html: one file that opens offline and shows why the winner won."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from mixdpo_ray import storage
from mixdpo_ray.pages import rendered_page
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.figures import parts
from mixdpo_ray.search.report.study_of_trials import folded_study
from mixdpo_ray.search.report.tables import failures, state_counts, trial_table
from mixdpo_ray.search.report.winner import describe_winner

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["StudyFacts", "write_report"]


def write_report(study: Study, facts: StudyFacts, path: str) -> None:
    study = folded_study(study)
    chapters = parts(study, facts)
    drawn = any(figure.drawings for part in chapters for figure in part.figures)
    page = rendered_page(
        "mixdpo_ray.search.report",
        "report.html.j2",
        facts=facts,
        winner=describe_winner(study, facts),
        parts=chapters,
        table=trial_table(study, facts),
        failures=failures(study),
        states=state_counts(study),
        plotly=_plotly() if drawn else None,
    )
    storage.write_bytes(path, page)


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
