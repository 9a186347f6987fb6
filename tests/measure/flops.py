"""Useful floating-point operations of a training step, defined once, and the share of a ceiling that they reach.

    6 x linear weights x tokens run + 6 x width x vocabulary x completion tokens
    + 12 x layers x query width x pairs of a query and a key that it sees

Padding, recomputed activations and the reference's pass are work, but not useful. Only completion tokens are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tests.measure.sizes import Shape
from tests.peer.setup import Row

DATASHEET = 989e12  # per second, of an H100 and an H200 alike: bfloat16, dense


@dataclass(frozen=True)
class Work:
    """What a step is made of; additive."""

    tokens: int
    completions: int
    visible: int  # pairs of a query and a key that it sees

    @classmethod
    def of(cls, rows: Sequence[Row], *, shared: bool = False) -> Self:
        """Of pairs whose two sequences are run one by one; or with a prompt that is run once for both."""
        tokens = completions = visible = 0
        for row in rows:
            prompt = len(row["prompt_ids"])
            for answer in ("chosen_ids", "rejected_ids"):
                length = prompt + len(row[answer])
                tokens += length
                completions += len(row[answer])
                visible += length * (length + 1) // 2
            if shared:
                tokens -= prompt
                visible -= prompt * (prompt + 1) // 2
        return cls(tokens, completions, visible)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.tokens + other.tokens, self.completions + other.completions, self.visible + other.visible
        )

    def flops(self, shape: Shape) -> int:
        return (
            6 * shape.linear_weights * self.tokens
            + 6 * shape.width * shape.vocabulary * self.completions
            + 12 * shape.layers * shape.query_width * self.visible
        )
