"""Micro-batches as tensors. The only other file that knows how sequences lie in them is logps.py.

A batch is flat: the chosen answers of easy pairs, the chosen answers of hard pairs, the rejected answers of easy pairs.
A hard pair has no rejected tokens and no reference here, so nothing has to be masked away later; unless an objective
trains it (curriculum.hard_objective): those stand behind the easy ones, with both answers.
All of it goes through the model in one row without padding (packed_rows.py), where the model can have that. Otherwise
sequences of like length are padded together, on the right, in as many groups as save more padding than a pass through
the model costs; under ZeRO-3 and on GPUs in one group (length_groups.py). A causal model's outputs at real positions do
not depend on what follows, so there is no attention mask, and the fast causal kernels stay usable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.mismatched import mismatched_ids
from mixdpo_ray.tables.reference_table import TOKENS, ReferenceTable, TokenReferenceTable
from mixdpo_ray.tables.runs import RUNS, mask_of
from mixdpo_ray.training.length_groups import RowKind, length_groups
from mixdpo_ray.training.packed_rows import Layout, ModelInput, Tokens, packed_row, tensor_on
from mixdpo_ray.training.row_slices import WHOLE, RowSlice

Predictors = NDArray[np.int64]  # [tokens]


@dataclass(frozen=True)
class PairBatch:
    groups: tuple[ModelInput, ...]  # one packed row, or a slice of it; or padded ones
    predictors: Tensor  # [tokens] indices into the flattened groups, one after the other: before each scored token
    targets: Tensor  # [tokens] those completion tokens: without turns of others inside an answer
    slots: Tensor  # [tokens] their indices into the flattened [sequences * longest completion]
    lengths: Tensor  # [sequences] completion tokens, as floats
    longest: int  # longest completion
    easy: int  # pairs
    hard: int  # chosen answers of hard pairs that are trained alone
    margin: Tensor  # [pairs with both answers]
    ref_chosen: Tensor | None  # the same
    ref_rejected: Tensor | None
    weight: float  # 0 for a filler
    hard_pairs: int = 0  # with both answers
    ref_tokens: Tensor | None = None  # [2 pairs with both answers, longest] chosen, then rejected
    step: Mapping[str, Tensor] = field(default_factory=dict)  # [easy] what the objective read off the whole step


@dataclass(frozen=True)
class References:
    """Reference log-probs by position of a split; NaN where a pair is not covered."""

    chosen: NDArray[np.float32]
    rejected: NDArray[np.float32]
    mismatched: References | None = None  # of each prompt with foreign answers (pairs/mismatched.py)
    tokens: tuple[Ragged, Ragged] | None = None  # of the chosen and the rejected answers

    @classmethod
    def of(cls, folder: str, index: Index, *, mismatched: bool = False, tokens: bool = False) -> References:
        store = ReferenceTable.open(folder)
        foreign = cls(*store.aligned(mismatched_ids(index, range(len(index))))) if mismatched else None
        single = None
        if tokens:
            chosen, rejected = TokenReferenceTable.open(folder + TOKENS).aligned(index.pair_id)
            single = (Ragged.of(chosen), Ragged.of(rejected))
        return cls(*store.aligned(index.pair_id), foreign, single)

    def of_tokens(self, positions: NDArray[np.int64], longest: int) -> NDArray[np.float32]:
        """[2 pairs, longest], zero behind the end of an answer."""
        assert self.tokens is not None
        padded = np.zeros((2 * len(positions), longest), np.float32)
        lists = [side[int(position)] for side in self.tokens for position in positions]
        for row, values in zip(padded, lists, strict=True):
            row[: len(values)] = values
        return padded


@dataclass(frozen=True)
class Ragged:
    """A column of lists as one array and where each list begins."""

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Ragged:
        lists = column.combine_chunks()
        return cls(lists.values.to_numpy(), lists.offsets.to_numpy().astype(np.int64))

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class TokenRows:
    """Rows of a prepared table, ready to be cut into micro-batches."""

    prompt: Ragged
    chosen: Ragged
    rejected: Ragged
    margin: NDArray[np.float64]
    positions: NDArray[np.int64]  # ascending
    runs: tuple[list[Any], list[Any]] | None = None  # of the chosen and the rejected answers (tables/runs.py)

    @classmethod
    def of(cls, rows: pa.Table, positions: NDArray[np.int64]) -> TokenRows:
        prompt, chosen, rejected = (Ragged.of(rows[f"{name}_ids"]) for name in ("prompt", "chosen", "rejected"))
        has_runs = RUNS[0] in rows.column_names
        runs = (rows[RUNS[0]].to_pylist(), rows[RUNS[1]].to_pylist()) if has_runs else None
        return cls(prompt, chosen, rejected, rows["margin"].to_numpy(), positions, runs)

    def scored(self, chosen: NDArray[np.int64], rejected: NDArray[np.int64]) -> list[NDArray[np.bool_]] | None:
        """[tokens] of the chosen and then the rejected answers of these rows, whether each is scored; none: all are."""
        if self.runs is None:
            return None
        sides = ((self.runs[0], self.chosen, chosen), (self.runs[1], self.rejected, rejected))
        return [mask_of(runs[row], len(answers[row])) for runs, answers, rows in sides for row in rows.tolist()]


def build_batch(
    tokens: TokenRows,
    positions: NDArray[np.int64],
    hard: NDArray[np.bool_],
    references: References | None,
    *,
    weight: float,
    padding: int,
    device: torch.device,
    rows: RowKind = "grouped",
    alone: NDArray[np.bool_] | None = None,
    row_slice: RowSlice = WHOLE,
) -> PairBatch:
    """One micro-batch of the pairs at `positions` [pairs]; `hard` says of each whether it is.

    `alone`: whether its chosen answer is trained without the rejected one; all hard ones unless told.
    With a `row_slice`, its rows and the tokens that are predicted there are the slice's; all else is of every pair.
    """
    alone = hard if alone is None else alone
    pair_positions = np.concatenate([positions[~hard], positions[hard & ~alone]])
    both = np.searchsorted(tokens.positions, pair_positions)
    chosen = np.concatenate([both, np.searchsorted(tokens.positions, positions[alone])])
    prompts = [tokens.prompt[row] for row in (*chosen, *both)]
    completions = [*(tokens.chosen[row] for row in chosen), *(tokens.rejected[row] for row in both)]
    if rows == "packed":
        groups, predictors = _packed(prompts, completions, len(chosen), device)
    else:
        groups, predictors = _padded(prompts, completions, padding, device, by_length=rows == "grouped")
    scored = tokens.scored(chosen, both)
    if scored is not None:
        predictors = predictors[np.concatenate(scored)]
        completions = [completion[mask] for completion, mask in zip(completions, scored, strict=True)]
    tokens_at = answer_tokens(completions)
    if row_slice != WHOLE:
        groups, predictors, tokens_at = _sliced(groups, predictors, tokens_at, row_slice)
    reference = (None, None) if references is None else (references.chosen, references.rejected)
    return PairBatch(
        groups=groups,
        predictors=tensor_on(device, predictors),
        targets=tensor_on(device, tokens_at["targets"]),
        slots=tensor_on(device, tokens_at["slots"]),
        lengths=tensor_on(device, tokens_at["lengths"]),
        longest=max(map(len, completions)),
        easy=int(np.count_nonzero(~hard)),
        hard=len(chosen) - len(both),
        margin=tensor_on(device, tokens.margin[both].astype(np.float32)),
        ref_chosen=None if reference[0] is None else tensor_on(device, reference[0][pair_positions]),
        ref_rejected=None if reference[1] is None else tensor_on(device, reference[1][pair_positions]),
        weight=weight,
        hard_pairs=int(np.count_nonzero(hard & ~alone)),
        ref_tokens=None
        if references is None or references.tokens is None
        else tensor_on(device, references.of_tokens(pair_positions, max(map(len, completions)))),
    )


def _packed(
    prompts: Tokens, completions: Tokens, pairs: int, device: torch.device
) -> tuple[tuple[ModelInput, ...], Predictors]:
    row = packed_row(prompts[:pairs], completions[:pairs], completions[pairs:])
    ids, positions = (tensor_on(device, array[None]) for array in (row.ids, row.positions))
    return (ModelInput(ids, positions, Layout.of(row.spans, device)),), row.predictors


def _sliced(
    groups: tuple[ModelInput, ...], predictors: Predictors, tokens_at: dict[str, NDArray[Any]], own: RowSlice
) -> tuple[tuple[ModelInput, ...], Predictors, dict[str, NDArray[Any]]]:
    (row,) = groups
    assert row.layout is not None, "a padded row is not cut"
    assert row.positions is not None
    held = own.holds(predictors, row.layout.tokens)
    sliced = ModelInput(own.cut(row.ids), own.cut(row.positions), row.layout, row_slice=own)
    here = {name: tokens_at[name][held] for name in ("targets", "slots")}
    return (sliced,), predictors[held] - own.start(row.layout.tokens), {**tokens_at, **here}


def _padded(
    prompts: Tokens, completions: Tokens, padding: int, device: torch.device, *, by_length: bool
) -> tuple[tuple[ModelInput, ...], Predictors]:
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in zip(prompts, completions, strict=True)])
    groups = length_groups(lengths) if by_length else [np.arange(len(lengths))]
    rows = tuple(
        ModelInput(
            tensor_on(device, padded_together(prompts, completions, group, padding)),
            lengths=tensor_on(device, lengths[group]),
        )
        for group in groups
    )
    return rows, padded_predictors(prompts, completions, groups)


def padded_together(prompts: Tokens, completions: Tokens, rows: NDArray[np.int64], padding: int) -> NDArray[np.int64]:
    """prompt + completion of each row, [rows, longest]."""
    width = max(len(prompts[row]) + len(completions[row]) for row in rows)
    ids = np.full((len(rows), width), padding, np.int64)
    for number, row in enumerate(rows):
        prompt, completion = prompts[row], completions[row]
        ids[number, : len(prompt)] = prompt
        ids[number, len(prompt) : len(prompt) + len(completion)] = completion
    return ids


def padded_predictors(prompts: Tokens, completions: Tokens, groups: list[NDArray[np.int64]]) -> Predictors:
    """Indices of the tokens before completion tokens, in the order of sequences."""
    before, lengths = _counts(prompts), _counts(completions)
    assert before.min() > 0, "the first completion token needs a token before it"
    starts, offset = np.zeros(len(lengths), np.int64), 0  # of each sequence in the flattened groups
    for rows in groups:
        width = int((before + lengths)[rows].max())
        starts[rows] = offset + width * np.arange(len(rows))
        offset += width * len(rows)
    return np.repeat(starts + before - 1, lengths) + _within(lengths)


def answer_tokens(completions: Tokens) -> dict[str, NDArray[Any]]:
    """The completion tokens and where each stands among them, in the order of sequences."""
    lengths = _counts(completions)
    assert lengths.min() > 0, "an empty completion has no log-prob"
    return {
        "targets": np.concatenate(completions).astype(np.int64),
        "slots": np.repeat(np.arange(len(lengths)) * lengths.max(), lengths) + _within(lengths),
        "lengths": lengths.astype(np.float32),
    }


def _counts(sequences: Tokens) -> NDArray[np.int64]:
    return np.array([len(sequence) for sequence in sequences])


def _within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[tokens] 0, 1, ... of every sequence."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
