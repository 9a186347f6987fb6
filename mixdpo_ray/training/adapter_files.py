"""A peft adapter that training starts from: its configuration, read without peft."""

from __future__ import annotations

import json
from typing import Any

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.model_files import ADAPTER_CONFIG, adapter_folder
from mixdpo_ray.training.settings import LoraSettings
from mixdpo_ray.wording import first_line

_OWN = {  # setting -> its name in the adapter's configuration
    "rank": "r",
    "alpha": "lora_alpha",
    "target_modules": "target_modules",
    "rslora": "use_rslora",
    "dora": "use_dora",
    "modules_to_save": "modules_to_save",
}


def resolved(lora: LoraSettings) -> LoraSettings:
    """The settings with what the adapter's own configuration says; refused where the recipe says otherwise."""
    if lora.adapter is None:
        return lora
    config = _config(lora.adapter)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"model.lora.adapter {lora.adapter!r} is {config.get('peft_type')}, not LORA: give another")
    own: dict[str, Any] = {setting: config.get(name) for setting, name in _OWN.items()}
    for setting in ("target_modules", "modules_to_save"):
        if not isinstance(own[setting], str):
            own[setting] = tuple(sorted(own[setting] or ()))
    own |= {setting: bool(own[setting]) for setting in ("rslora", "dora")}
    for setting in sorted(lora.given & set(own)):
        asked = getattr(lora, setting)
        if (tuple(sorted(asked)) if isinstance(asked, tuple) else asked) != own[setting]:
            raise ModelError(
                f"model.lora.{setting} {asked!r} contradicts model.lora.adapter {lora.adapter}, which has "
                f"{own[setting]!r}: leave it out"
            )
    return lora.model_copy(update=own)


def _config(name: str) -> dict[str, Any]:
    file = adapter_folder(name) / ADAPTER_CONFIG
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.lora.adapter {name!r} has no {ADAPTER_CONFIG} that can be read: {first_line(error)}"
        ) from error
    return content
