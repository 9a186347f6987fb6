"""One window shared out, and the global counts that losses are divided by. From the index alone: no rank asks another.

A mean of means depends on how a window is split; a sum divided by the window's own count does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.plan import Window
from mixdpo_ray.curriculum.shares import Lengths, MicroBatch, PassSize, Share, deal
from mixdpo_ray.tables.index import Index
from mixdpo_ray.training.length_groups import RowKind, length_groups


@dataclass(frozen=True)
class WindowTotals:
    """Over all ranks and micro-steps; fillers are in `computed` only."""

    pairs: int
    easy: int
    hard: int  # whose chosen answer is trained alone
    hard_tokens: int  # of those, the tokens that are scored
    hard_micro_batches: int
    chunks: tuple[int, ...]  # of the vocabulary projection in each micro-step: the most that any rank needs
    tokens: int  # of the sequences, each with its prompt
    shared: int  # of them, those of prompts that are not run again for the rejected answer
    computed: int  # that are run: tokens and padding
    hard_pairs: int = 0  # hard ones that are trained by both answers

    @property
    def padding(self) -> int:
        return self.computed - (self.tokens - self.shared)


@dataclass(frozen=True)
class SharedWindow:
    window: Window
    shares: tuple[Share, ...]  # of each rank
    totals: WindowTotals


def share_window(
    window: Window, index: Index, world_size: int, per_device: PassSize, chunk_tokens: int, rows: RowKind = "grouped"
) -> SharedWindow:
    lengths = index_lengths(index, window.positions)
    shares = deal(lengths, window.alone, world_size, per_device, packed=rows == "packed")
    return SharedWindow(window, shares, _totals(window, lengths, shares, chunk_tokens, rows))


def index_lengths(index: Index, positions: NDArray[np.int64]) -> Lengths:
    return Lengths(index.prompt_length, index.chosen_length, index.rejected_length, scored=index.scored)[positions]


def _totals(
    window: Window, lengths: Lengths, shares: tuple[Share, ...], chunk_tokens: int, rows: RowKind
) -> WindowTotals:
    hard = window.alone
    micro_batches = [micro for share in shares for micro in share]
    easy_tokens = np.where(hard, 0, lengths.prompt + lengths.rejected)
    return WindowTotals(
        pairs=len(hard),
        easy=int(np.count_nonzero(~window.hard)),
        hard=int(np.count_nonzero(hard)),
        hard_tokens=int(lengths.chosen_scored[hard].sum()),
        hard_micro_batches=sum(bool(micro.weight and hard[micro.rows].any()) for micro in micro_batches),
        chunks=chunk_counts(hard, lengths, shares, chunk_tokens),
        tokens=int((lengths.prompt + lengths.chosen + easy_tokens).sum()),
        shared=int(lengths.prompt[~hard].sum()) if rows == "packed" else 0,
        computed=sum(tokens_run(micro, hard, lengths, rows) for micro in micro_batches),
        hard_pairs=int(np.count_nonzero(window.hard & ~hard)),
    )


def chunk_counts(
    hard: NDArray[np.bool_], lengths: Lengths, shares: tuple[Share, ...], chunk_tokens: int
) -> tuple[int, ...]:
    """Equal on every rank: under ZeRO-3 each chunk gathers the projection's weights together."""
    completion = lengths.chosen_scored + np.where(hard, 0, lengths.rejected_scored)
    most = [max(int(completion[micro.rows].sum()) for micro in together) for together in zip(*shares, strict=True)]
    return tuple(-(-tokens // chunk_tokens) for tokens in most)


def tokens_run(micro: MicroBatch, hard: NDArray[np.bool_], lengths: Lengths, rows: RowKind) -> int:
    """The tokens of a forward pass, padding included."""
    mine, easy = lengths[micro.rows], ~hard[micro.rows]
    if rows == "packed":
        return int((mine.prompt + mine.chosen + mine.rejected * easy).sum())
    sequences = np.concatenate([mine.prompt + mine.chosen, (mine.prompt + mine.rejected)[easy]])
    groups = length_groups(sequences) if rows == "grouped" else [np.arange(len(sequences))]
    return sum(len(group) * int(sequences[group].max()) for group in groups)
