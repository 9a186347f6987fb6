"""Synthetic pairs for measurements of scale: lengths like UltraFeedback's, tokens at random, margins in halves.

Lognormal lengths with long tails: prompts of about 160 tokens (median 115, at most 512), answers of about 295 (median
270, at most 512). Random tokens do not compress: a real table is smaller on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VOCABULARY, LONGEST, LONGEST_PROMPT = 128_256, 1024, 512
ID = 32  # characters of a pair id
LENGTHS = ("prompt", "chosen", "rejected")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Rows [first, first + count) of a made-up source; the same ones whoever draws them."""

    first: int
    count: int
    fraction: float = 1.0  # of the usual lengths

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.first)

    def lengths(self, generator: np.random.Generator) -> dict[str, Ints]:
        prompt = self._cut(generator.lognormal(np.log(115), 0.95, self.count), LONGEST_PROMPT)
        answers = [
            self._cut(generator.lognormal(np.log(270), 0.75, self.count), LONGEST - LONGEST_PROMPT) for _ in range(2)
        ]
        return dict(zip(LENGTHS, (prompt, *answers), strict=True))

    def _cut(self, lengths: NDArray[np.float64], most: int) -> Ints:
        return np.maximum(np.clip(lengths, 4, most) * self.fraction, 1).astype(np.int64)

    def margins(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Many ties, as ratings have."""
        return np.minimum(np.round(2 * generator.exponential(1.5, self.count)) / 2, 9)


def hex_ids(generator: np.random.Generator, count: int) -> pa.Array:
    """Uniform 128-bit numbers, as pair ids are."""
    text = generator.bytes(ID // 2 * count).hex().encode()
    offsets = np.arange(0, ID * count + 1, ID, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def token_lists(generator: np.random.Generator, lengths: Ints) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = generator.integers(0, VOCABULARY, int(offsets[-1]), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens))


def scored(draw: Draw, generator: np.random.Generator) -> dict[str, pa.Array]:
    """Ids, tokens and scores."""
    lengths, margins = draw.lengths(generator), draw.margins(generator)
    return {
        "pair_id": hex_ids(generator, draw.count),
        **{f"{name}_ids": token_lists(generator, lengths[name]) for name in LENGTHS},
        "score_chosen": pa.array(margins + 1),
        "score_rejected": pa.array(np.ones(draw.count)),
        "margin": pa.array(margins),
    }
