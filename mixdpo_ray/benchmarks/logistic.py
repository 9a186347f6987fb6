"""Logistic regression of outcomes between 0 and 1, with an L1 penalty, and the win rates that such fits predict.

    minimise |theta|_1 / C + sum_i s_i [ -p_i log q_i - (1 - p_i) log(1 - q_i) ],   q = expit(x theta), no intercept

Newton steps, each of which solves the quadratic model with the L1 term by coordinate descent and is halved until the
objective falls: a few columns need five or six. C = inf leaves the penalty out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.benchmarks.resampling import Vector

Matrix = NDArray[np.float64]
CHOICES = tuple(10 ** (-4 + 8 * k / 9) for k in range(10))  # of C
FOLDS = 5
EVERY_ROW = -1  # the prompt of rows that are in every sample


def expit(x: Vector) -> Vector:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), dtype=np.float64)


def fit_logistic(columns: Matrix, outcome: Vector, weight: Vector, c: float, start: Vector | None = None) -> Vector:
    """The coefficients that minimise the objective."""
    theta = np.zeros(columns.shape[1]) if start is None else start
    penalty = 1 / c

    def objective(theta: Vector) -> float:
        logit = columns @ theta
        return float(weight @ (np.logaddexp(0, logit) - outcome * logit) + penalty * np.abs(theta).sum())

    value = objective(theta)
    for _ in range(100):
        q = expit(columns @ theta)
        gradient = columns.T @ (weight * (q - outcome))
        hessian: Matrix = (columns.T * (weight * q * (1 - q))) @ columns + 1e-12 * np.eye(len(theta))
        step = _quadratic_step(theta, gradient, hessian, penalty)
        size, proposed = 1.0, objective(theta + step)
        while proposed > value and size > 1e-6:
            size /= 2
            proposed = objective(theta + size * step)
        if not proposed < value - 1e-12 * (1 + abs(value)):
            break
        theta, value = theta + size * step, proposed
    return theta


def _quadratic_step(theta: Vector, gradient: Vector, hessian: Matrix, penalty: float) -> Vector:
    """The step that minimises gradient . step + step . hessian . step / 2 + penalty |theta + step|_1."""
    if not penalty:
        return np.asarray(np.linalg.solve(hessian, -gradient), dtype=np.float64)
    step = np.zeros_like(theta)
    for _ in range(1000):
        before = step.copy()
        for j, curvature in enumerate(np.diag(hessian)):
            rest = gradient[j] + hessian[j] @ step - curvature * step[j]
            centre = curvature * theta[j] - rest  # where the coefficient would be without the penalty, times curvature
            step[j] = math.copysign(max(abs(centre) - penalty, 0), centre) / curvature - theta[j]
        if np.abs(step - before).max() <= 1e-12:
            break
    return step


def choose_c(columns: Matrix, outcome: Vector, weight: Vector) -> float:
    """The C whose fits to four fifths of the rows say most of the other fifth; row i is in fold i mod 5."""
    fold = np.arange(len(outcome)) % FOLDS

    def held_out(c: float) -> float:
        total = 0.0
        for one in range(FOLDS):
            out, kept = fold == one, fold != one
            theta = fit_logistic(columns[kept], outcome[kept], weight[kept], c)
            q = np.clip(expit(columns[out] @ theta), 1e-15, 1 - 1e-15)
            gain = outcome[out] * np.log(q) + (1 - outcome[out]) * np.log(1 - q)
            total += float(np.mean(weight[out] * gain))
        return total

    return max(CHOICES, key=held_out)


@dataclass(frozen=True, eq=False)
class FittedWinRate:
    """The win rate that a fit predicts where a covariate, such as the difference of lengths, is taken out."""

    items: tuple[str, ...]
    columns: Matrix  # [rows, k]
    outcome: Vector  # [rows], of the model
    weight: Vector  # [rows]
    prompt: NDArray[np.int64]  # [rows]: its index in items, or EVERY_ROW
    without: Matrix  # [items, k]: the columns of each prompt with the covariate taken out
    c: float = math.inf
    fits: dict[bytes, Vector] = field(
        default_factory=dict, repr=False
    )  # by a hash of the counts; common to a joint fit

    percent: ClassVar[bool] = True
    standard_error: ClassVar[None] = None

    @cached_property
    def coefficients(self) -> Vector:
        return fit_logistic(self.columns, self.outcome, self.weight, self.c)

    def value(self, counts: Vector) -> float:
        return 100 * float(counts @ expit(self.without @ self._fitted(counts)) / counts.sum())

    def _fitted(self, counts: Vector) -> Vector:
        """The coefficients of a drawn sample, once: arms of one fit and their differences ask for the same ones."""
        drawn = hashlib.blake2b(counts.tobytes(), digest_size=16).digest()
        if drawn not in self.fits:
            times = np.where(self.prompt == EVERY_ROW, 1.0, counts[self.prompt])
            weight = self.weight * times
            self.fits[drawn] = fit_logistic(self.columns, self.outcome, weight, self.c, start=self.coefficients)
        return self.fits[drawn]


def fitted_together(
    arms: Sequence[str],
    rows: Sequence[tuple[int, str]],
    covariates: Matrix,
    outcome: Vector,
    weight: Vector,
    c: float = math.inf,
) -> dict[str, FittedWinRate]:
    """Each arm's win rate without the covariates, from one fit of all `rows` (the arm's number, the prompt's item).

    Each arm has a level of its own; what a covariate is worth is common to all.
    """
    items = tuple(sorted({item for _, item in rows}))
    index = {item: number for number, item in enumerate(items)}
    prompt = np.array([index[item] for _, item in rows])
    columns = np.column_stack([np.eye(len(arms))[[number for number, _ in rows]], covariates])
    found: dict[str, FittedWinRate] = {}
    fits: dict[bytes, Vector] = {}
    for number, arm in enumerate(arms):
        without = np.zeros((len(items), columns.shape[1]))
        without[:, number] = 1
        found[arm] = FittedWinRate(items, columns, outcome, weight, prompt, without, c, fits)
    return found
