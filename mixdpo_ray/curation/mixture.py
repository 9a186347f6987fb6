"""Which pairs are the wrong way round, by how surprising a model finds their answers (PerpCorrect).

x is the mean surprise per token of the chosen answer minus that of the rejected one, under a model that learned from
trusted pairs. Right pairs lie around mu < 0, flipped ones around -mu:

    w N(mu, s) + (1 - w) N(-mu, s)

so 1 - w is the share of flipped pairs. The fit is by expectation and maximisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ITERATIONS, SETTLED = 2000, 1e-10
LEAST_SHARE = 1e-4  # of either component: the logarithm of their ratio must exist


@dataclass(frozen=True)
class Mixture:
    mean: float  # mu, of pairs that are right; below 0
    deviation: float  # s
    right: float  # w, the share of pairs that are the right way round

    @property
    def noise_rate(self) -> float:
        return 1 - self.right

    @property
    def threshold(self) -> float:
        """x*, from which on a pair is flipped."""
        return self.deviation**2 / (2 * self.mean) * self._log_odds

    @property
    def separation(self) -> float:
        """The share of pairs that end up the right way round by it."""
        below = normal_below((self.threshold - self.mean) / self.deviation)
        above = 1 - normal_below((self.threshold + self.mean) / self.deviation)
        return self.right * below + (1 - self.right) * above

    def flipped(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(flipped | x)."""
        logit = -2 * self.mean * x / self.deviation**2 + self._log_odds
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -700, 700))))

    @property
    def _log_odds(self) -> float:
        """ln((1 - w) / w)."""
        return math.log((1 - self.right) / self.right)


def fit_mixture(x: NDArray[np.float64]) -> Mixture:
    """The likeliest mixture; of two that mirror each other the one in which most pairs are right."""
    right, deviation = 0.8, float(x.std()) or 1e-6
    mean = -max(abs(float(x.mean())), deviation / 2)
    found = Mixture(mean, deviation, right)
    for _ in range(ITERATIONS):
        flipped = found.flipped(x)
        right = float(np.clip(1 - flipped.mean(), LEAST_SHARE, 1 - LEAST_SHARE))
        mean = float(((1 - 2 * flipped) * x).mean())  # flipped pairs count mirrored
        variance = float(((1 - flipped) * (x - mean) ** 2 + flipped * (x + mean) ** 2).mean())
        after = Mixture(min(mean, -1e-9), math.sqrt(max(variance, 1e-18)), right)
        settled = max(abs(after.mean - found.mean), abs(after.deviation - found.deviation), abs(right - found.right))
        found = after
        if settled < SETTLED * max(1.0, abs(found.mean)):
            break
    return found


def normal_below(value: float) -> float:
    """The distribution function of the standard normal distribution."""
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def trusted_next(x: NDArray[np.float64], right: float, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers that join the trusted ones: as they are, and flipped.

    Of `share` of all m pairs, round(w m) are those with the lowest x, the others those with the highest.
    """
    count = min(round(share * len(x)), len(x))
    kept = round(right * count)
    order = np.argsort(x, kind="stable")
    return order[:kept], order[len(x) - (count - kept) :]
