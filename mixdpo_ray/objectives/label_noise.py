"""DPO for labels of which a known share is flipped: given, or as data.curate estimates it."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.objective import Ranges

CURATED = "curated"
_Share = Annotated[float, Field(ge=0, lt=0.5)] | Literal["curated"]


class LabelNoise(LogRatioObjective):
    search: ClassVar[Ranges] = {**LogRatioObjective.search, "label_smoothing": {"uniform": (0.0, 0.3)}}

    label_smoothing: _Share = Field(
        0.1, description="Share of labels taken to be flipped; curated: as data.curate estimates it"
    )

    @property
    def flipped(self) -> float:
        assert isinstance(self.label_smoothing, float), "the share is known once there is a table (with_noise_rate)"
        return self.label_smoothing

    def with_noise_rate(self, rate: float | None) -> Self:
        if self.label_smoothing != CURATED or rate is None:
            return self
        return self.model_copy(update={"label_smoothing": rate})
