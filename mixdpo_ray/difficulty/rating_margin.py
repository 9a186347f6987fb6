"""Rating margin: the chosen answer's rating minus the rejected one's, as checked at preparation."""

from typing import ClassVar

from mixdpo_ray.difficulty.metric import Column, Metric, MetricInputs


class RatingMargin(Metric):
    """Rating of the chosen answer minus rating of the rejected one."""

    needs: ClassVar[str] = "ratings"

    def values(self, facts: MetricInputs) -> Column:
        return facts.margin
