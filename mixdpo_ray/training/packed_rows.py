"""Pairs in one row without padding, a prompt in it once: [prompt | chosen | rejected] [prompt | chosen] ...

Positions begin again at every pair, and a rejected answer goes on where its prompt ended. The row falls into spans,
runs of tokens with what they see: a prompt and its chosen answer see themselves; a rejected answer sees the prompt,
then itself. The first token of both answers is predicted at the prompt's last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray.training.row_slices import WHOLE, RowSlice

Tokens = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Span:
    """The tokens [start, stop) of a row, each of which sees the prompt, if any, and those of the span up to itself."""

    start: int
    stop: int
    prompt: tuple[int, int] | None = None  # tokens that stand elsewhere in the row, before the span

    @property
    def queries(self) -> int:
        return self.stop - self.start

    @property
    def keys(self) -> int:
        return self.queries if self.prompt is None else self.queries + self.prompt[1] - self.prompt[0]

    @property
    def key_indices(self) -> NDArray[np.int64]:
        own = np.arange(self.start, self.stop)
        return own if self.prompt is None else np.concatenate([np.arange(*self.prompt), own])


@dataclass(frozen=True)
class PackedRow:
    ids: NDArray[np.int64]  # [tokens]
    positions: NDArray[np.int64]  # [tokens]
    spans: tuple[Span, ...]  # one behind the other, of the whole row
    predictors: NDArray[
        np.int64
    ]  # [answer tokens] indices into the row, of all chosen answers and then of the rejected ones


def packed_row(prompts: Tokens, chosen: Tokens, rejected: Tokens) -> PackedRow:
    """`prompts` and `chosen` of all pairs, `rejected` of the first ones: the others are hard."""
    ids: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    spans: list[Span] = []
    predictors: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    assert min(map(len, prompts)) > 0, "the first completion token needs a token before it"
    for number, (prompt, answer) in enumerate(zip(prompts, chosen, strict=True)):
        start = spans[-1].stop if spans else 0
        behind = start + len(prompt)  # the prompt
        spans.append(Span(start, behind + len(answer)))
        ids += [prompt, answer]
        positions.append(np.arange(len(prompt) + len(answer)))
        predictors[0].append(np.arange(behind - 1, behind - 1 + len(answer)))
        if number < len(rejected):
            first, length = spans[-1].stop, len(rejected[number])
            spans.append(Span(first, first + length, (start, behind)))
            ids.append(rejected[number])
            positions.append(np.arange(len(prompt), len(prompt) + length))
            predictors[1].append(np.concatenate([[behind - 1], np.arange(first, first + length - 1)]))
    return PackedRow(
        ids=np.concatenate(ids).astype(np.int64),
        positions=np.concatenate(positions),
        spans=tuple(spans),
        predictors=np.concatenate([*predictors[0], *predictors[1]]),
    )


@dataclass(frozen=True)
class Layout:
    """How the tokens of one packed row see each other; handed down to every attention layer."""

    spans: tuple[Span, ...]  # host integers: no kernel waits for them
    queries: Tensor  # [spans + 1] int32, cumulative
    keys: Tensor  # [spans + 1] int32, cumulative; prompts count again for rejected answers
    key_indices: Tensor  # [keys] indices into the row
    longest_queries: int
    longest_keys: int

    @classmethod
    def of(cls, spans: tuple[Span, ...], device: torch.device) -> Layout:
        queries, keys = [span.queries for span in spans], [span.keys for span in spans]
        return cls(
            spans=spans,
            queries=tensor_on(device, _ends(queries)),
            keys=tensor_on(device, _ends(keys)),
            key_indices=tensor_on(device, np.concatenate([span.key_indices for span in spans])),
            longest_queries=max(queries),
            longest_keys=max(keys),
        )

    @property
    def tokens(self) -> int:
        return self.spans[-1].stop

    @cached_property
    def seen(self) -> int:
        """Pairs of a query and a key of its span, those after it too."""
        return sum(span.queries * span.keys for span in self.spans)

    @cached_property
    def padded_spans(self) -> PaddedSpans:
        queries, keys = (np.diff(ends.cpu().numpy()) for ends in (self.queries, self.keys))
        starts, first_keys = (ends.cpu().numpy()[:-1] for ends in (self.queries, self.keys))
        query, key = np.arange(self.longest_queries), np.arange(self.longest_keys)
        own = np.where(query < queries[:, None], starts[:, None] + query, 0)
        at = np.where(key < keys[:, None], first_keys[:, None] + key, 0)
        behind = key - query[:, None] - (keys - queries)[:, None, None]  # keys after a query's own
        flat = np.repeat(np.arange(len(queries)) * self.longest_queries - starts, queries) + np.arange(queries.sum())
        device = self.queries.device
        return PaddedSpans(
            queries=tensor_on(device, own.astype(np.int64).ravel()),
            keys=self.key_indices[tensor_on(device, at.astype(np.int64).ravel())],
            behind=tensor_on(device, behind[:, None]),
            results=tensor_on(device, flat.astype(np.int64)),
        )


@dataclass(frozen=True)
class ModelInput:
    """What goes through the model at once."""

    ids: Tensor  # [sequences of the group, time of the group]; packed [1, tokens]
    positions: Tensor | None = None  # [1, tokens] of a packed row
    layout: Layout | None = None  # of the whole row; None: padded, plain causal attention
    lengths: Tensor | None = None  # [sequences of the group] without the padding
    row_slice: RowSlice = WHOLE  # of a packed row


@dataclass(frozen=True)
class PaddedSpans:
    """The spans of a row as a batch of like length, padded behind."""

    queries: Tensor  # [spans * longest queries] indices into the row
    keys: Tensor  # [spans * longest keys]
    behind: Tensor  # [spans, 1, longest queries, longest keys] how far a key lies after the query's own
    results: Tensor  # [tokens of the row] indices into the queries


def _ends(counts: list[int]) -> NDArray[np.int32]:
    return np.cumsum([0, *counts]).astype(np.int32)


def tensor_on(device: torch.device, array: NDArray[Any]) -> Tensor:
    """The array's own memory on a CPU; on a GPU a copy that is under way."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
