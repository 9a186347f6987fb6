"""What curating finds of every training pair of a table, and what is to become of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]
_Numbers = NDArray[np.float64]
LARGEST_RATE = 0.49  # of labels that are wrong: robust_dpo divides by 1 - 2 rate


@dataclass(frozen=True)
class CuratedPairs:
    """Each by position of the table that was curated: [pairs]. Scores are those of the answers as they stood there."""

    kept: _Mask
    exchanged: _Mask  # chosen and rejected
    score_chosen: _Numbers
    score_rejected: _Numbers
    margin: _Numbers  # of the pair as it will stand
    columns: Mapping[str, _Numbers] = field(default_factory=dict)  # what was found, by name, for the table
    facts: Mapping[str, Any] = field(default_factory=dict)  # numbers for the manifest and the report

    @property
    def noise_rate(self) -> float:
        """The share of the kept pairs whose order is still wrong, as far as it can be estimated."""
        return float(self.facts["noise_rate"])


def share_text(part: float) -> str:
    return f"{part:.1%}"


def bounded(rate: float) -> float:
    return float(np.clip(rate, 0.0, LARGEST_RATE))
