"""Which pairs are held out for evaluation: whole prompts, spread evenly over the margins, chosen by a hash.

Prompts lie in a row from the smallest margin to the largest, ties by hash. The row is cut into as many equal blocks as
prompts are wanted, and each block gives the prompt whose other hash is smallest. So every margin is represented by its
share, to within one prompt, and the choice depends neither on the order of the rows nor on how many workers read them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import PairIdColumn, seeded_hashes
from mixdpo_ray.pairs.settings import HeldoutSettings


def split_heldout(
    prompt_ids: PairIdColumn, margins: NDArray[np.float64], settings: HeldoutSettings
) -> NDArray[np.bool_]:
    """The mask [pairs] of held-out pairs; a prompt is held out with all its pairs or not at all."""
    return spread_out(prompt_ids, margins, round(settings.fraction * len(margins)), settings)


def spread_out(
    prompt_ids: PairIdColumn, margins: NDArray[np.float64], pairs: int, settings: HeldoutSettings
) -> NDArray[np.bool_]:
    """About `pairs` pairs and never more than settings.max_pairs, evenly over the margins."""
    if not len(margins):
        return np.zeros(0, np.bool_)
    column = prompt_ids if isinstance(prompt_ids, pa.ChunkedArray) else pa.chunked_array([prompt_ids], pa.string())
    coded = column.dictionary_encode().combine_chunks()
    prompts, prompt_of = coded.dictionary, coded.indices.to_numpy()
    sizes = np.bincount(prompt_of)
    hardest = np.full(len(prompts), np.inf)
    np.minimum.at(hardest, prompt_of, margins)
    wanted = min(pairs, settings.max_pairs) * len(prompts) / len(margins)
    picked = _one_of_each_block(prompts, hardest, round(wanted), settings.seed)
    chosen = np.zeros(len(prompts), np.bool_)
    chosen[picked[np.cumsum(sizes[picked]) <= settings.max_pairs]] = True
    return np.asarray(chosen[prompt_of])


def _one_of_each_block(prompts: pa.Array, margins: NDArray[np.float64], blocks: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the chosen prompts, in the order of their hash so that a cut at any length is fair too."""
    if blocks == 0:
        return np.zeros(0, np.int64)
    row = np.lexsort((seeded_hashes(prompts, seed), margins))
    # another hash than the one ties lie in the order of: a block would always give its first prompt
    lot = seeded_hashes(prompts, seed + 1)
    block = np.arange(len(row)) * blocks // len(row)
    by_lot = np.lexsort((lot[row], block))
    first = np.searchsorted(block, np.arange(blocks))
    picked = row[by_lot[first]]
    return np.asarray(picked[np.argsort(lot[picked])])
