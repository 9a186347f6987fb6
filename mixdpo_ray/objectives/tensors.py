"""Tensors and the sigmoids that most losses are made of.

A recipe is read with every objective, and without torch, which takes seconds to import: it comes with the first loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor as Tensor
else:
    Tensor = Any

EXPONENT_BOUND = 80.0  # e^89 is no 32-bit number, and what it is multiplied by needs room


def sigmoid(values: Tensor) -> Tensor:
    return values.sigmoid()


def logsigmoid(values: Tensor) -> Tensor:
    """The log of the sigmoid, which does not underflow."""
    import torch.nn.functional

    return torch.nn.functional.logsigmoid(values)
