"""Every figure of the page, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.search.report.comparable import comparable
from mixdpo_ray.search.report.cost import cost, timeline
from mixdpo_ray.search.report.curves import learning_curves
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.importances import importances
from mixdpo_ray.search.report.score_map import score_map
from mixdpo_ray.search.report.search_figures import history, parallel_coordinates, pareto_front, rungs, slices
from mixdpo_ray.search.report.style import PagePart

if TYPE_CHECKING:
    from optuna.study import Study

SETTINGS = (importances, score_map, slices, parallel_coordinates)
TRAINING = (learning_curves, rungs)
SEARCH = (history, cost, timeline)


def parts(study: Study, facts: StudyFacts) -> list[PagePart]:
    """None where plotly, an extra, is not installed."""
    from optuna.visualization import is_available

    if not is_available():
        return []
    settings = (pareto_front, *SETTINGS) if len(facts.metrics) > 1 else SETTINGS
    compared = comparable(study, facts)
    why = "What the settings did" if facts.best is None or compared.note else "Why it won"
    return [
        PagePart("settings", why, tuple(draw(compared.study, compared.facts) for draw in settings), compared.note),
        PagePart("training", "How the trials trained", tuple(draw(study, facts) for draw in TRAINING)),
        PagePart("search", "How the search went", tuple(draw(study, facts) for draw in SEARCH)),
    ]
