"""Win rates that do not reward length: a fit in which the difference of lengths is a covariate, and then no difference.

AlpacaEval's: t = tanh((length of the baseline's - of the model's) / sd), d the prompt's difficulty, logit a t + b d +
c; beside the model's prompts stand calibration rows, the baseline against its own verbose and concise selves, of
weight 0.1 each and without c. Difficulty is joined by item: looked up by row number, as the standard tool does it,
one missing answer shifts that of all later rows. The intervals come from fits to resampled prompts: the spread of the
predictions, which that tool prints as the error, is less than half of what chance does.

For prompts that have no known difficulty the logit is a t + c, with one c an arm where arms are fitted together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixdpo_ray.benchmarks.logistic import EVERY_ROW, FittedWinRate, choose_c, expit, fitted_together
from mixdpo_ray.benchmarks.resampling import BenchmarkScore, Vector
from mixdpo_ray.errors import EvaluationError

CALIBRATION_WEIGHT = 0.1
OWN_C = 10.0  # without calibration rows: all wins stay finite, and 100 prompts move by a tenth of a point


@dataclass(frozen=True)
class ArmLengths:
    """One arm's outcomes (1 is its win) and lengths in characters, by item."""

    outcome: Mapping[str, float]
    model: Mapping[str, int]
    baseline: Mapping[str, int]

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(sorted(self.outcome))

    @property
    def covariate(self) -> Vector:
        excess = np.array([self.baseline[item] - self.model[item] for item in self.items], dtype=np.float64)
        deviation = excess.std(ddof=1) if len(excess) > 1 else 0.0
        return np.tanh(excess / deviation) if deviation else np.zeros_like(excess)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The benchmark's own rows and the difficulty of its prompts."""

    difficulty: Mapping[str, float]
    excess: Vector  # [rows]: differences of lengths over their standard deviation
    row_difficulty: Vector
    outcome: Vector


def length_controlled(lengths: ArmLengths, calibration: Calibration, c: float | None = None) -> FittedWinRate:
    """AlpacaEval's figure; coefficients of length, difficulty and the model. C is chosen by folds where it is None."""
    unknown = [item for item in lengths.items if item not in calibration.difficulty]
    if unknown:
        raise EvaluationError(f"prompt {unknown[0]}: its difficulty is not known; give the file of the same prompts")
    return _calibrated(lengths, np.array([calibration.difficulty[item] for item in lengths.items]), calibration, c)


def length_controlled_by_row_number(
    lengths: ArmLengths, rows: Sequence[str], calibration: Calibration, c: float | None = None
) -> FittedWinRate:
    """The standard tool's figure with its fault: row n of the answers gets the difficulty of item n.

    To repeat a published number, and for nothing else.
    """
    number = {item: str(row) for row, item in enumerate(rows)}
    shifted = np.array([calibration.difficulty[number[item]] for item in lengths.items])
    return _calibrated(lengths, shifted, calibration, c)


def length_controlled_together(arms: Mapping[str, ArmLengths]) -> dict[str, FittedWinRate]:
    """Each arm's win rate at equal length from one fit, a t + c_arm: not the leaderboard's figure."""
    rows = [(number, item) for number, arm in enumerate(arms.values()) for item in arm.items]
    covariate = np.concatenate([arm.covariate for arm in arms.values()])
    outcome = np.array([arm.outcome[item] for arm in arms.values() for item in arm.items], dtype=np.float64)
    return fitted_together(tuple(arms), rows, covariate[:, None], outcome, np.ones(len(rows)), OWN_C)


def head_to_head(one: FittedWinRate, other: FittedWinRate, difficulty: Mapping[str, float]) -> float:
    """What one is predicted to win against the other at equal length, from their fits against the same baseline."""
    _, slope, level = one.coefficients - other.coefficients
    return float(100 * expit(level + slope * np.array([difficulty[item] for item in sorted(difficulty)])).mean())


def is_doubtful(win_rate: float, controlled: float) -> bool:
    """Whether length control moved a win rate so far that the fit is to be doubted: AlpacaEval's own rule."""
    low = min(win_rate * 3 / 4, win_rate - 10)
    high = max(win_rate + (100 - win_rate) / 4, win_rate + 10)
    return not low <= controlled <= high


def notes_on_fit(win_rate: BenchmarkScore, controlled: BenchmarkScore, *, calibrated: bool) -> Iterator[str]:
    """What a reader of both win rates must know."""
    if not calibrated:
        yield "the length-controlled win rate is a fit to these answers alone, not the leaderboard's figure"
    before, after = win_rate.value, controlled.value
    if is_doubtful(before, after):
        yield f"length control moves the win rate from {before:.1f} to {after:.1f}: the fit is doubtful"


def _calibrated(lengths: ArmLengths, difficulty: Vector, calibration: Calibration, c: float | None) -> FittedWinRate:
    count, rows = len(lengths.items), len(calibration.outcome)
    own = np.column_stack([lengths.covariate, difficulty, np.ones(count)])
    others = np.column_stack([np.tanh(calibration.excess), calibration.row_difficulty, np.zeros(rows)])
    columns = np.concatenate([others, own])
    outcome = np.concatenate([calibration.outcome, [lengths.outcome[item] for item in lengths.items]])
    weight = np.concatenate([np.full(rows, CALIBRATION_WEIGHT), np.ones(count)])
    prompt = np.concatenate([np.full(rows, EVERY_ROW), np.arange(count)])
    without = np.column_stack([np.zeros(count), difficulty, np.ones(count)])
    chosen = c if c is not None else choose_c(columns, outcome, weight)
    return FittedWinRate(lengths.items, columns, outcome, weight, prompt, without, chosen)
