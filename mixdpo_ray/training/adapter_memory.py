"""What adapters add to a model's memory, by arithmetic: nothing is loaded, and peft is not asked.

An adapter of a layer has rank x (inputs + outputs) weights, with DoRA one more an output. Dropout keeps what it let
through and a byte for each; DoRA keeps two outputs more of each layer. A weight in 4 bits, with a scale of 8 bits
for 64 weights and one of 32 for 256 scales, takes 0.5 + 1 / 64 + 4 / 16,384 bytes. all-linear leaves the output layer
out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mixdpo_ray.training.adapter_files import resolved
from mixdpo_ray.training.optimizer_memory import Matrices
from mixdpo_ray.training.settings import LoraSettings

FOUR_BITS = 0.5 + 1 / 64 + 4 / 16_384  # bytes


@dataclass(frozen=True)
class Adapters:
    weights: int = 0  # trained, with those of modules_to_save
    quantised: int = 0  # weights of the base in 4 bits
    dropped: int = 0  # inputs of a token that dropout sees, in all layers
    scaled: int = 0  # outputs of a token that DoRA scales, in all layers
    unread: int = 0  # inputs of a token to layers without adapters, wider than the model
    matrices: Matrices = field(default_factory=Matrices)

    def kept_bytes(self, element: int) -> int:
        """Per token, until the backward pass."""
        return (element + 1) * self.dropped + element * (2 * self.scaled - self.unread)

    def saved_bytes(self, element: int) -> int:
        """What weights in 4 bits take less than `element` bytes each."""
        return int((element - FOUR_BITS) * self.quantised)


def adapters_of(model: Any, settings: LoraSettings | None) -> Adapters:
    if settings is None:
        return Adapters()
    lora = resolved(settings)
    output, targets = model.get_output_embeddings(), lora.target_modules

    def chosen(name: str, layer: nn.Module) -> bool:
        if targets == "all-linear":
            return layer is not output
        if isinstance(targets, str):
            return re.fullmatch(targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in targets)

    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    adapted = [layer for name, layer in linear if chosen(name, layer)]
    inputs, outputs = (sum(getattr(layer, f"{side}_features") for layer in adapted) for side in ("in", "out"))
    pairs = lora.rank * (inputs + outputs)
    whole = [
        module
        for name, module in model.named_modules()
        if any(name == one or name.endswith(f".{one}") for one in lora.modules_to_save)
    ]
    copied = sum(weight.numel() for module in whole for weight in module.parameters())
    widest = max((side for layer in adapted for side in (layer.in_features, layer.out_features)), default=0)
    idle = [layer for name, layer in linear if layer is not output and not chosen(name, layer)]
    hidden = model.config.get_text_config().hidden_size
    return Adapters(
        unread=sum(layer.in_features for layer in idle if layer.in_features > hidden),
        weights=pairs + copied + (outputs if lora.dora else 0),
        quantised=sum(layer.weight.numel() for _, layer in linear if layer is not output) if lora.quantize else 0,
        dropped=inputs if lora.dropout else 0,
        scaled=outputs if lora.dora else 0,
        matrices=Matrices(pairs, widest, lora.rank, max(widest * lora.rank, copied)),
    )
