"""Libraries that only some settings need, each an extra of this package: that one is missing is told before any work.

A training imports them in its workers, after minutes of preparation perhaps, and starting those again brings none.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from mixdpo_ray.recipe.recipe import Recipe


@dataclass(frozen=True)
class Extra:
    name: str
    module: str
    setting: str  # that needs it
    instead: str

    def lacking(self, where: str = "") -> str:
        return f"{self.setting} needs {self.module}{where}: pip install 'mixdpo_ray[{self.name}]', or {self.instead}"


def extras_for_training(recipe: Recipe) -> list[Extra]:
    """What the recipe's settings ask for, by whoever trains."""
    asked = {
        Extra("lora", "peft", "model.lora", "leave it out to train all weights"): recipe.model.lora is not None,
        Extra("liger", "liger_kernel", "model.kernels liger", "set it to none"): recipe.model.kernels == "liger",
        Extra("bitsandbytes", "bitsandbytes", "train.optimizer.name adamw_8bit", "set it to adamw"): (
            recipe.train.optimizer.name == "adamw_8bit"
        ),
        Extra("bitsandbytes", "bitsandbytes", "model.lora.quantize", "leave it out"): (
            recipe.model.lora is not None and recipe.model.lora.quantize
        ),
    }
    trackers = [
        Extra(settings.extra, settings.package, f"output.trackers.{name}", "leave it out")
        for name, settings in recipe.output.trackers.items()
    ]
    return [*(extra for extra, wanted in asked.items() if wanted), *trackers]


def lacks(module: str) -> bool:
    return importlib.util.find_spec(module) is None
