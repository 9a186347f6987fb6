"""The optimizer of a training."""

from __future__ import annotations

import torch
from torch import nn

from mixdpo_ray.training.settings import OptimizerSettings


def adamw(scorer: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Biases and norms are not decayed, as in transformers."""
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    shapes = [getattr(parameter, "ds_shape", parameter.shape) for parameter in trained]  # ds_shape: under ZeRO-3
    groups = [{"params": trained}]
    if settings.weight_decay:
        wide = [parameter for parameter, shape in zip(trained, shapes, strict=True) if len(shape) > 1]
        narrow = [parameter for parameter, shape in zip(trained, shapes, strict=True) if len(shape) <= 1]
        groups = [{"params": wide}, {"params": narrow, "weight_decay": 0.0}]  # type: ignore[dict-item]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
