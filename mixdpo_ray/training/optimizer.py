"""The optimizer of a training, and what is done to all of them alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mixdpo_ray.training.muon import Muon
from mixdpo_ray.training.settings import OptimizerSettings

ANY_WORLD = ("adamw",)  # whose checkpoints the engine converts for another number of workers
_TABLES = ("qmap1", "qmap2")  # what the values of 8 bits mean: no moments


def make_optimizer(scorer: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    if settings.name == "muon":
        return _muon(scorer, settings)
    groups = _groups(trained_parameters(scorer), settings)
    if settings.name == "adamw_8bit":
        import bitsandbytes

        library: Any = bitsandbytes.optim
        eight_bit: torch.optim.Optimizer = library.AdamW8bit(groups, **_options(settings))
        return eight_bit
    return torch.optim.AdamW(groups, **_options(settings), fused=True)


def trained_parameters(scorer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in scorer.parameters() if parameter.requires_grad]


def whole_shape(parameter: Tensor) -> torch.Size:
    """The shape of a parameter, of which ZeRO-3 keeps a piece."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_ratio", 1.0)


def reset(optimizer: torch.optim.Optimizer) -> None:
    """Zero the moments and the step counters in place: bit for bit what a new optimizer has."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if torch.is_tensor(value) and name not in _TABLES:
                value.zero_()
        if isinstance(state.get("step"), int):
            state["step"] = 0


def _options(settings: OptimizerSettings) -> dict[str, Any]:
    return {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
        "weight_decay": settings.weight_decay,
    }


def _groups(parameters: list[nn.Parameter], settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Biases and norms are not decayed, as in transformers."""
    if not settings.weight_decay:
        return [{"params": parameters}]
    wide = [parameter for parameter in parameters if len(whole_shape(parameter)) > 1]
    narrow = [parameter for parameter in parameters if len(whole_shape(parameter)) <= 1]
    groups: list[dict[str, Any]] = [{"params": wide}, {"params": narrow, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _muon(scorer: nn.Module, settings: OptimizerSettings) -> Muon:
    """Embeddings and the output layer are tables of tokens, not maps between states: they are AdamW's."""
    tables = [module.weight for module in scorer.modules() if isinstance(module, nn.Embedding)]
    model: Any = scorer.model
    output = model.get_output_embeddings()
    told = {id(weight) for weight in [*tables, *([] if output is None else [output.weight])]}
    trained = trained_parameters(scorer)
    matrices = [one for one in trained if len(whole_shape(one)) in (2, 3) and id(one) not in told]
    chosen = {id(one) for one in matrices}
    rest = _groups([one for one in trained if id(one) not in chosen], settings)
    rest = [group for group in rest if group["params"]]
    ratio = (settings.muon_learning_rate or settings.learning_rate) / settings.learning_rate
    adamw = torch.optim.AdamW(rest, **_options(settings), fused=True) if rest else None
    return Muon(
        matrices, adamw, settings.learning_rate, ratio, momentum=settings.muon_momentum, decay=settings.weight_decay
    )
