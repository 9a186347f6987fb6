"""Log-probs that both sides are given, random or made by hand, and what they find in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

Logps = Sequence[Sequence[float]]  # of the tokens of each answer


@dataclass(frozen=True)
class Batch:
    """Plain numbers, which reach another process as they are."""

    chosen: Logps
    rejected: Logps
    ref_chosen: Sequence[float]  # sums
    ref_rejected: Sequence[float]
    prompts: Logps  # of their tokens after the first, which nothing predicts


@dataclass(frozen=True)
class Found:
    loss: float  # mean over the batch
    by_chosen: list[float]  # its derivative by the sum of each chosen answer
    by_rejected: list[float]


def random_batch(seed: int, shortest: int = 1, longest: int = 12) -> Batch:
    """One to six pairs; the policy is near its reference for even seeds and far from it for odd ones."""
    draw = random.Random(seed)

    def texts(shortest: int) -> list[list[float]]:
        return [[-draw.expovariate(1.0) - 0.01 for _ in range(draw.randint(shortest, longest))] for _ in range(count)]

    def references(logps: Logps) -> list[float]:
        return [sum(answer) + draw.gauss(0, 20.0 if seed % 2 else 0.5) for answer in logps]

    count = draw.randint(1, 6)
    chosen, rejected = texts(shortest), texts(shortest)
    return Batch(chosen, rejected, references(chosen), references(rejected), texts(1))


def joined(*batches: Batch) -> Batch:
    return Batch(**{name: [row for batch in batches for row in getattr(batch, name)] for name in vars(batches[0])})
