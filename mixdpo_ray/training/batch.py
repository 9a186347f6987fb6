"""Micro-batches as tensors. The only other file that knows how sequences lie in them is logps.py.

A batch is flat: the chosen answers of easy pairs, the chosen answers of hard pairs, the rejected answers of easy pairs.
A hard pair has no rejected tokens and no reference here, so nothing has to be masked away later.
Sequences are padded on the right to the longest of their own micro-batch. A causal model's outputs at real positions do
not depend on what follows, so there is no attention mask, and the fast causal kernels stay usable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray.pairs.reference_table import ReferenceTable


@dataclass(frozen=True)
class PairBatch:
    input_ids: Tensor  # [sequences, time]
    predictors: Tensor  # [tokens] places in the flattened [sequences * time] whose outputs predict completion tokens
    targets: Tensor  # [tokens] those completion tokens
    slots: Tensor  # [tokens] their places in the flattened [sequences * longest completion]
    lengths: Tensor  # [sequences] completion tokens, as floats
    longest: int  # longest completion
    easy: int  # pairs
    hard: int
    margin: Tensor  # [easy]
    ref_chosen: Tensor | None  # [easy]
    ref_rejected: Tensor | None
    weight: float  # 0 for a filler


@dataclass(frozen=True)
class References:
    """Reference log-probs by position of a split; NaN where a pair is not covered."""

    chosen: NDArray[np.float32]
    rejected: NDArray[np.float32]

    @classmethod
    def of(cls, folder: str, pair_ids: list[str]) -> References:
        return cls(*ReferenceTable.open(folder).aligned(pair_ids))


@dataclass(frozen=True)
class Ragged:
    """A column of token lists as one array and the place where each list begins."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Ragged:
        lists = column.combine_chunks()
        return cls(lists.values.to_numpy(), lists.offsets.to_numpy().astype(np.int64))

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class TokenRows:
    """Rows of a prepared table, ready to be cut into micro-batches."""

    prompt: Ragged
    chosen: Ragged
    rejected: Ragged
    margin: NDArray[np.float64]
    positions: NDArray[np.int64]  # ascending

    @classmethod
    def of(cls, rows: pa.Table, positions: NDArray[np.int64]) -> TokenRows:
        prompt, chosen, rejected = (Ragged.of(rows[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))
        return cls(prompt, chosen, rejected, rows["margin"].to_numpy(), positions)


def build_batch(
    tokens: TokenRows,
    positions: NDArray[np.int64],
    hard: NDArray[np.bool_],
    references: References | None,
    *,
    weight: float,
    padding: int,
    device: torch.device,
) -> PairBatch:
    """One micro-batch of the pairs at `positions` [pairs]; `hard` says of each whether it is."""
    easy_positions = positions[~hard]
    easy = np.searchsorted(tokens.positions, easy_positions)
    chosen = np.concatenate([easy, np.searchsorted(tokens.positions, positions[hard])])
    prompts = [tokens.prompt[row] for row in (*chosen, *easy)]
    completions = [*(tokens.chosen[row] for row in chosen), *(tokens.rejected[row] for row in easy)]
    arrays = flat_sequences(prompts, completions, padding)
    reference = (None, None) if references is None else (references.chosen, references.rejected)
    return PairBatch(
        **{name: _tensor(array, device) for name, array in arrays.items()},
        longest=max(map(len, completions)),
        easy=len(easy),
        hard=len(chosen) - len(easy),
        margin=_tensor(tokens.margin[easy].astype(np.float32), device),
        ref_chosen=None if reference[0] is None else _tensor(reference[0][easy_positions], device),
        ref_rejected=None if reference[1] is None else _tensor(reference[1][easy_positions], device),
        weight=weight,
    )


def flat_sequences(
    prompts: list[NDArray[np.int32]], completions: list[NDArray[np.int32]], padding: int
) -> dict[str, NDArray[Any]]:
    """prompt + completion in each row, and where the completion tokens and their predictors lie."""
    before = np.array([len(prompt) for prompt in prompts])
    lengths = np.array([len(completion) for completion in completions])
    assert before.min() > 0, "the first completion token needs a token before it"
    assert lengths.min() > 0, "an empty completion has no log-prob"
    width, longest = int((before + lengths).max()), int(lengths.max())
    input_ids = np.full((len(prompts), width), padding, np.int64)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        input_ids[row, : len(prompt)] = prompt
        input_ids[row, len(prompt) : len(prompt) + len(completion)] = completion
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # [tokens] 0, 1, ... per row
    rows = np.arange(len(prompts))
    return {
        "input_ids": input_ids,
        "predictors": np.repeat(rows * width + before - 1, lengths) + within,
        "targets": np.concatenate(completions).astype(np.int64),
        "slots": np.repeat(rows * longest, lengths) + within,
        "lengths": lengths.astype(np.float32),
    }


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
