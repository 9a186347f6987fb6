"""Several raters of one pair: whether they agree on its order, how far apart they are, and how often they err."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TIE = 1e-9  # equal ratings may differ in the last bit


@dataclass(frozen=True)
class Raters:
    """What raters say of the pairs' margins, each on the scale of all of them together: NaN where one says nothing."""

    margins: NDArray[np.float64]  # [pairs, raters]

    @classmethod
    def of(cls, margins: NDArray[np.float64]) -> Raters:
        """Margins of raters whose scales differ: each is divided by its own size and multiplied by the mean one."""
        size = np.sqrt(np.nanmean(margins**2, axis=0))
        size = np.where(size > 0, size, 1.0)
        return cls(margins / size * float(size.mean()))

    @property
    def votes(self) -> NDArray[np.int64]:
        """1 for the order of the pair, -1 against it, 0 for a tie or nothing: [pairs, raters]."""
        known = np.nan_to_num(self.margins)
        return np.where(np.abs(known) <= _TIE, 0, np.sign(known)).astype(np.int64)

    @property
    def disagree(self) -> NDArray[np.bool_]:
        """Whether one rater is for and another one against the order: [pairs]."""
        return np.asarray((self.votes > 0).any(1) & (self.votes < 0).any(1))

    @property
    def against(self) -> NDArray[np.bool_]:
        """Whether more raters are against the order than for it: [pairs]."""
        return np.asarray(self.votes.sum(1) < 0)

    @property
    def width(self) -> NDArray[np.float64]:
        """The standard deviation of the raters' margins, an honest width of the pair's: [pairs]."""
        known = np.isfinite(self.margins)
        count = np.maximum(known.sum(1), 1)
        mean = np.nansum(self.margins, axis=1) / count
        squares = np.where(known, (self.margins - mean[:, None]) ** 2, 0.0).sum(1)
        return np.asarray(np.sqrt(squares / count))

    @property
    def error_rate(self) -> float:
        """How often one rater has the order wrong, if they err independently and alike.

        Two of them then disagree in 2 e (1 - e) of the pairs; more than half of all pairs no such raters could.
        """
        votes = self.votes
        differ = total = 0
        for one in range(votes.shape[1]):
            for other in range(one):
                both = (votes[:, one] != 0) & (votes[:, other] != 0)
                total += int(both.sum())
                differ += int((votes[both, one] != votes[both, other]).sum())
        share = min(differ / total if total else 0.0, 0.5)
        return (1 - math.sqrt(1 - 2 * share)) / 2


def unanimous_error(error: float, raters: int) -> float:
    """P(the order is wrong | all raters agree on it), if they err independently."""
    return error**raters / (error**raters + (1 - error) ** raters)


def majority_error(error: float, raters: int) -> float:
    """P(the order is wrong | most raters are for it), a half where they draw."""
    wrong = sum(
        math.comb(raters, k) * error**k * (1 - error) ** (raters - k) for k in range(raters // 2 + 1, raters + 1)
    )
    if raters % 2:
        return wrong
    return wrong + 0.5 * math.comb(raters, raters // 2) * (error * (1 - error)) ** (raters // 2)
