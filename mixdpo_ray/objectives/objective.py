"""What every preference objective is: frozen settings and one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.settings import Settings


class Objective(Settings, ABC):
    needs_reference: ClassVar[bool] = True
    search: ClassVar[Mapping[str, Mapping[str, Sequence[float]]]] = {}  # its hyperparameters' ranges, as in tune.space

    @abstractmethod
    def losses(self, pairs: PairLogps) -> Tensor:
        """One loss per pair, unreduced: [pairs]."""

    @abstractmethod
    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        """The implicit rewards of the chosen and the rejected answers, for metrics: [pairs] each."""
