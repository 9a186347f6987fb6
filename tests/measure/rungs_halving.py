"""How well rungs foretell the end, and what successive halving returns for its tokens. Arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REDUCTION = 3


@dataclass(frozen=True)
class Candidate:
    """A configuration as one arm sees it: a score at every rung, the last one final, and the cost of getting there."""

    scores: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def final(self) -> float:
        return self.scores[-1]


@dataclass(frozen=True)
class Outcome:
    choice: int | None  # of the candidates in the order in which they were tried; None where no rung was reached
    tried: int  # that reached a rung
    finished: int  # that reached the last one
    spent: float


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """From 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; NaN where one side is all alike."""
    first, second = (ranks(side) - (len(side) + 1) / 2 for side in (left, right))
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale else float("nan")


def promoted(score: float, at_rung: Sequence[float]) -> bool:
    """Optuna's rule: among the best third of those that reached the rung, this one included; the best of fewer."""
    place = max(1, len(at_rung) // REDUCTION)
    return score >= sorted(at_rung, reverse=True)[place - 1]


def halve(candidates: Iterable[Candidate], budget: float) -> Outcome:
    """One after another until the next rung would cost more than is left; then the best of the highest rung."""
    at_rung: dict[int, list[float]] = {}
    best: tuple[int, float] = (-1, -np.inf)
    choice, spent, finished = None, 0.0, 0
    for number, candidate in enumerate(candidates):
        for rung, (score, cost) in enumerate(zip(candidate.scores, candidate.costs, strict=True)):
            if spent + cost > budget:
                return Outcome(choice, len(at_rung.get(0, [])), finished, spent)
            spent += cost
            at_rung.setdefault(rung, []).append(score)
            if (rung, score) > best:
                best, choice = (rung, score), number
            last = rung == len(candidate.scores) - 1
            finished += last
            if not last and not promoted(score, at_rung[rung]):
                break
    return Outcome(choice, len(at_rung.get(0, [])), finished, spent)


def halve_together(candidates: Sequence[Candidate]) -> tuple[int, float]:
    """The choice and the cost where all meet at a rung before the best third of them goes on, one at least."""
    left, spent = list(range(len(candidates))), 0.0
    for rung in range(len(candidates[0].scores)):
        spent += sum(candidates[number].costs[rung] for number in left)
        left.sort(key=lambda number: -candidates[number].scores[rung])
        left = left[: max(1, len(left) // REDUCTION)]
    return left[0], spent


def regret(candidates: Sequence[Candidate], order: Sequence[int], budget: float) -> tuple[float, Outcome]:
    """What the returned configuration's final score lacks to the best one's; of the median one where none returned."""
    outcome = halve((candidates[number] for number in order), budget)
    finals = [candidate.final for candidate in candidates]
    returned = float(np.median(finals)) if outcome.choice is None else finals[order[outcome.choice]]
    return max(finals) - returned, outcome
