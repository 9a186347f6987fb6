"""Log-probs of one token per row of logits, on a CPU; fused_logps.py has them on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NORMALISED_AT_ONCE = 1 << 23  # logits that are normalised at once


class _SelectedLogps(torch.autograd.Function):
    """log-softmax at one token per row, with no buffer of the vocabulary's size but the logits themselves.

    For the backward pass they are turned into probabilities in place, and those into the gradient. Should anything else
    have kept the logits for its own backward pass, torch notices. (exp() of log-probs takes six times softmax's time.)
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, NORMALISED_AT_ONCE // logits.shape[-1])
        chosen = []
        for block, wanted in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
            chosen.append(block.log_softmax(-1).gather(-1, wanted[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                block.copy_(block.softmax(-1))
        ctx.save_for_backward(logits, targets)
        return torch.cat(chosen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (probabilities, targets), gradient = ctx.saved_tensors, gradients[0][:, None]
        wide = probabilities.mul_(-gradient)  # (one-hot - softmax) * gradient
        return wide.scatter_add_(-1, targets[:, None], gradient), None


@torch.no_grad()
def mean_of_draws(logits: Tensor) -> Tensor:
    """logits [tokens, vocabulary] -> log of the sum of squared probabilities [tokens], in float32."""
    found = []
    for block in torch.split(logits, max(1, NORMALISED_AT_ONCE // logits.shape[-1])):
        wide = block.float()
        found.append((2 * wide).logsumexp(-1) - 2 * wide.logsumexp(-1))
    return torch.cat(found)


def selected_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [tokens, vocabulary] in float32, which are overwritten -> log-probs of targets [tokens]."""
    logps: Tensor = _SelectedLogps.apply(logits, targets)  # type: ignore[no-untyped-call]
    return logps
