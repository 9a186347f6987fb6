"""Metrics that a prepared table answers by itself: its own columns. They cost nothing and read no model.

Orders and limits use their own values, as people know them, and not those that are turned so that higher is easier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mixdpo_ray.difficulty.metric import Column, Metric

if TYPE_CHECKING:
    from mixdpo_ray.difficulty.metric import MetricContext


class TableColumn(Metric):
    """A column of the prepared table."""

    column: ClassVar[str]

    def compute(self, context: MetricContext) -> Column:
        return self.easiness(context.column(self.column))


class RatingMargin(TableColumn):
    """Rating of the chosen answer minus rating of the rejected one."""

    needs: ClassVar[str] = "ratings"
    column: ClassVar[str] = "margin"


class ScoreChosen(TableColumn):
    """Rating of the chosen answer."""

    needs: ClassVar[str] = "ratings"
    column: ClassVar[str] = "score_chosen"


class ScoreRejected(TableColumn):
    """Rating of the rejected answer."""

    needs: ClassVar[str] = "ratings"
    column: ClassVar[str] = "score_rejected"


class PromptLength(TableColumn):
    """Tokens of the prompt: short is easy."""

    needs: ClassVar[str] = "nothing"
    column: ClassVar[str] = "prompt_length"
    smaller_is_easier: ClassVar[bool] = True


class ChosenLength(TableColumn):
    """Tokens of the chosen answer: short is easy."""

    needs: ClassVar[str] = "nothing"
    column: ClassVar[str] = "chosen_length"
    smaller_is_easier: ClassVar[bool] = True


class RejectedLength(TableColumn):
    """Tokens of the rejected answer: short is easy."""

    needs: ClassVar[str] = "nothing"
    column: ClassVar[str] = "rejected_length"
    smaller_is_easier: ClassVar[bool] = True
