"""Which pairs are hard: below a margin, or the hardest so many by rank."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixdpo_ray.settings import Settings

TOLERANCE = 1e-9  # margins this close to `value` equal it: ratings such as 4.1 - 3.6 miss 0.5 in the last bits


class Threshold(Settings):
    """Exactly one of value, hard_count and hard_fraction; no one of them means value 0.5, the paper's."""

    value: float | None = Field(
        None, description="Pairs below this margin are hard (0.5 where nothing is given: for ratings from 1 to 10)"
    )
    hard_count: int | None = Field(None, ge=0, description="This many pairs, the hardest by rank, are hard")
    hard_fraction: float | None = Field(None, ge=0, le=1, description="This share of the pairs is hard")
    tie_rule: Literal["lt", "le"] = Field("lt", description="Whether a margin equal to value is easy (lt) or hard (le)")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("value", "hard_count", "hard_fraction") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one")
        return self

    @property
    def given(self) -> bool:
        """Whether a person chose it."""
        return (self.value, self.hard_count, self.hard_fraction) != (None, None, None)

    @property
    def in_force(self) -> float | None:
        """The margin below which pairs are hard; none where their number decides."""
        if self.hard_count is not None or self.hard_fraction is not None:
            return None
        return 0.5 if self.value is None else self.value

    def __str__(self) -> str:
        """Write it as a person would."""
        if self.hard_count is not None:
            return f"hard_count={self.hard_count}"
        return f"{self.in_force:g}" if self.in_force is not None else f"hard_fraction={self.hard_fraction:g}"

    def hard_pairs(self, margins: NDArray[np.float64]) -> int:
        """How many pairs are hard. Rank decides which: the hard ones are the last in descending order."""
        assert not np.isnan(margins).any(), "a missing margin is neither easy nor hard: prepare refuses it"
        if self.hard_count is not None:
            return min(self.hard_count, len(margins))
        if self.hard_fraction is not None:
            return round(self.hard_fraction * len(margins))
        value = self.in_force
        assert value is not None
        if self.tie_rule == "lt":
            return int(np.count_nonzero(margins < value - TOLERANCE))
        return int(np.count_nonzero(margins <= value + TOLERANCE))
