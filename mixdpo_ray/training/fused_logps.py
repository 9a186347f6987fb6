"""Log-probs of one token per row on a GPU, in two kernels that move six bytes for each bfloat16 logit.

The first reads the logits once, for the log of their sum of exponentials; the second turns them into their own
gradient. Everything is computed in float32, and nothing of the vocabulary's size exists but the logits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 4096  # of the vocabulary that a program holds at a time


@triton.jit  # type: ignore[untyped-decorator]
def _select(logits, targets, logps, log_sums, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * width
    highest, total = float("-inf"), 0.0
    for first in range(0, width, block):
        columns = first + tl.arange(0, block)
        values = tl.load(own + columns, mask=columns < width, other=float("-inf")).to(tl.float32)
        raised = tl.maximum(highest, tl.max(values, 0))
        total = total * tl.exp(highest - raised) + tl.sum(tl.exp(values - raised), 0)
        highest = raised
    log_sum = highest + tl.log(total)
    wanted = tl.load(own + tl.load(targets + row)).to(tl.float32)
    tl.store(log_sums + row, log_sum)
    tl.store(logps + row, wanted - log_sum)


@triton.jit  # type: ignore[untyped-decorator]
def _to_gradient(logits, targets, log_sums, gradients, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    pointers = logits + row * width + columns
    values = tl.load(pointers, mask=columns < width, other=0.0).to(tl.float32)
    one_hot = tl.where(columns == tl.load(targets + row), 1.0, 0.0)
    slope = (one_hot - tl.exp(values - tl.load(log_sums + row))) * tl.load(gradients + row)
    tl.store(pointers, slope.to(logits.dtype.element_ty), mask=columns < width)


class _FusedLogps(torch.autograd.Function):
    """Should anything else have kept the logits for its own backward pass, torch notices that they have changed."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows, width = logits.shape
        logps, log_sums = (torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(2))
        _select[(rows,)](logits, targets, logps, log_sums, width, block=COLUMNS, num_warps=8)
        ctx.save_for_backward(logits, targets, log_sums)
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, log_sums = ctx.saved_tensors
        rows, width = logits.shape
        grid = (rows, triton.cdiv(width, COLUMNS))
        _to_gradient[grid](logits, targets, log_sums, gradients[0].contiguous(), width, block=COLUMNS, num_warps=8)
        torch.autograd.graph.increment_version(logits)
        return logits, None


def fused_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [tokens, vocabulary], which the backward pass overwrites -> log-probs of targets [tokens] in float32."""
    logps: Tensor = _FusedLogps.apply(logits.contiguous(), targets)  # type: ignore[no-untyped-call]
    return logps
