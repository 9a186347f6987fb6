"""Rows of numbers as no training should meet them, the same in every run."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Row = tuple[float, ...]  # both sums, both lengths, the margin, both sums of the reference
EDGES = (0.0, -1e-38, -1e-6, -0.125, -1.0, -60.0, -90.0, -1e4)  # e^89 is no float32


def drawn(count: int, lowest: float, highest: float = 0.0, margins: Sequence[float] = (0.0, 0.5, 9.0)) -> list[Row]:
    """Half of the sums are edges, the others of every order of magnitude; `highest` is of the policy's."""
    draw = random.Random(0)

    def total(highest: float) -> float:
        edges = [edge for edge in EDGES if lowest <= edge <= highest]
        size = 10 ** draw.uniform(math.log10(max(-highest, 1e-3)), math.log10(-lowest))
        return draw.choice([draw.choice(edges), -size])

    def length() -> int:
        return draw.choice([1, 2, 2048, draw.randint(1, 2048)])

    return [
        (total(highest), total(highest), length(), length(), draw.choice(margins), total(0.0), total(0.0))
        for _ in range(count)
    ]
