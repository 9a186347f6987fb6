"""Every figure of the page, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixdpo_ray.search.report.cost import cost, timeline
from mixdpo_ray.search.report.curves import learning_curves
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.importances import importances
from mixdpo_ray.search.report.look import Part
from mixdpo_ray.search.report.score_map import score_map
from mixdpo_ray.search.report.search_figures import history, parallel_coordinates, pareto_front, rungs, slices

if TYPE_CHECKING:
    from optuna.study import Study

WHY = (importances, score_map, slices, parallel_coordinates)
PARTS = (
    ("why", "Why it won", WHY),
    ("training", "How the trials trained", (learning_curves, rungs)),
    ("search", "How the search went", (history, cost, timeline)),
)


def parts(study: Study, facts: StudyFacts) -> list[Part]:
    """None where plotly, an extra, is not installed."""
    from optuna.visualization import is_available

    if not is_available():
        return []
    two = len(facts.metrics) > 1
    return [
        Part(
            anchor,
            title,
            tuple(draw(study, facts) for draw in ((pareto_front, *draws) if two and draws is WHY else draws)),
        )
        for anchor, title, draws in PARTS
    ]
