"""Supervised fine-tuning on the chosen answers of hard pairs: loss = - sum of weight * summed log-prob.

Every normalisation is a weight per pair that follows from lengths alone, so each rank knows it before any forward pass.
"""

from __future__ import annotations

from typing import Literal

from mixdpo_ray.objectives.tensors import Tensor

SftNorm = Literal["token_mean", "token_mean_local", "example_mean", "example_sum"]


def sft_weights(
    lengths: Tensor, norm: SftNorm, *, window_pairs: int, window_tokens: int, window_micro_batches: int
) -> Tensor:
    """Weights of one micro-batch's hard pairs [pairs]; the window_* numbers count hard pairs over all ranks.

    `window_micro_batches` counts the micro-batches that hold a hard pair. Only `token_mean_local` needs it: the mean of
    micro-batch means that some trainers report, which depends on how the window is split.
    """
    import torch

    lengths = lengths if lengths.is_floating_point() else lengths.float()  # whole numbers would round the weights to 0
    if not len(lengths):  # a micro-batch, or a whole window, without a hard pair: there is nothing to divide by
        return lengths
    if norm == "token_mean":
        return torch.full_like(lengths, 1 / window_tokens)
    if norm == "token_mean_local":
        return torch.full_like(lengths, 1 / window_micro_batches) / lengths.sum()
    if norm == "example_mean":
        return 1 / (lengths * window_pairs)
    return torch.full_like(lengths, 1 / window_pairs)
