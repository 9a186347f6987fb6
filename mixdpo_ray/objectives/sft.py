"""Supervised fine-tuning on the chosen answers of hard pairs: loss = - sum of weight * summed log-prob.

Every normalisation is a weight per pair that follows from lengths alone, so each rank knows it before any forward pass.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

SftNorm = Literal["token_mean", "token_mean_local", "example_mean", "example_sum"]


def sft_weights(
    lengths: Tensor, norm: SftNorm, *, window_pairs: int, window_tokens: int, window_micro_batches: int
) -> Tensor:
    """Weights of one micro-batch's hard pairs [pairs]; the window_* numbers count hard pairs over all ranks.

    `token_mean_local` is the mean of micro-batch means that some trainers report. It depends on how the window is split.
    """
    if norm == "token_mean":
        return lengths.new_full(lengths.shape, 1 / window_tokens)
    if norm == "token_mean_local":
        return lengths.new_full(lengths.shape, 1.0) / (lengths.sum() * window_micro_batches)
    if norm == "example_mean":
        return 1 / (lengths * window_pairs)
    return lengths.new_full(lengths.shape, 1 / window_pairs)
