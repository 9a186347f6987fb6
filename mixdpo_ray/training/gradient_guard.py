"""What stands before every update of weights."""

from __future__ import annotations

import math
from typing import Any

import torch

from mixdpo_ray.errors import NonFiniteError


class GradientGuard:
    """Runs before every update of parameters: knows the gradients' norm, and refuses one that is not finite.

    Without ZeRO, float32 gradients are clipped here as well, since the engine then hides their norm.
    """

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, max_norm: float):
        self.engine, self.max_norm = engine, max_norm
        self.norm = 0.0
        self.clips = engine.optimizer is optimizer

    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not self.clips:
            self.norm = float(self.engine.optimizer._global_grad_norm)
        else:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.norm = float(torch.nn.utils.get_total_norm(gradients))
            if self.max_norm and math.isfinite(self.norm):
                for gradient in gradients:
                    gradient.mul_(min(1.0, self.max_norm / (self.norm + 1e-6)))
        if not math.isfinite(self.norm) or self.norm < 0:
            raise NonFiniteError("the gradient is not finite")
