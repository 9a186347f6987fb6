"""Low-rank adapters in a model: put into it, merged into its weights, and written as peft loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.adapter_files import resolved
from mixdpo_ray.training.model_files import adapter_folder
from mixdpo_ray.training.settings import LoraSettings, ModelSettings
from mixdpo_ray.wording import first_line

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

NAME = "default"
_TRAINED, _KEPT = f".modules_to_save.{NAME}.", ".original_module."


def add_adapters(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Add them in place: names of the base weights gain `.base_layer`, and only what was added is trained."""
    from peft import LoraConfig, inject_adapter_in_model

    lora = resolved(settings)
    if lora.adapter is None:
        targets: Any = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=targets,
            use_rslora=lora.rslora,
            use_dora=lora.dora,
            modules_to_save=list(lora.modules_to_save) or None,
        )
    else:
        config = LoraConfig.from_pretrained(str(adapter_folder(lora.adapter)))
        config.inference_mode = False
    config.lora_dropout = lora.dropout
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ModelError(f"model.lora.target_modules {lora.target_modules!r}: {first_line(error)}") from error
    if lora.adapter is not None:
        _load(model, lora.adapter)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad = ".lora_" in name or _TRAINED in name


def _load(model: PreTrainedModel, adapter: str) -> None:
    from peft import load_peft_weights, set_peft_model_state_dict

    weights = load_peft_weights(str(adapter_folder(adapter)), device="cpu")
    named = {name.removeprefix("base_model.model."): tensor for name, tensor in weights.items()}
    result = set_peft_model_state_dict(model, named, adapter_name=NAME)
    absent = [name for name in result.missing_keys if ".lora_" in name]
    if odd := [*result.unexpected_keys, *absent]:
        raise ModelError(
            f"model.lora.adapter {adapter!r} does not fit the model: {odd[0]} and {len(odd) - 1} others are in one of "
            "them only; give the model that it was trained on as model.path"
        )


def scales(model: nn.Module) -> dict[str, float]:
    """What multiplies B A, by the name of the layer."""
    layers = ((name, getattr(module, "scaling", None)) for name, module in model.named_modules())
    return {name: float(scaling[NAME]) for name, scaling in layers if isinstance(scaling, dict) and NAME in scaling}


def plain_weights(model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights with those of 4 bits as numbers of `dtype`."""
    quantised = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
    }
    if not quantised:
        return dict(weights)
    import bitsandbytes

    library: Any = bitsandbytes.functional
    own = {name: weight for name, weight in weights.items() if name not in quantised and ".weight." not in name}
    for name, packed in quantised.items():
        own[name] = library.dequantize_4bit(packed.data, packed.quant_state).detach().to("cpu", dtype)
    return own


def merged(weights: Mapping[str, Tensor], scaling: Mapping[str, float]) -> dict[str, Tensor]:
    """Base weights plus scale x B A, computed in float32, or what was trained whole instead; under their own names."""
    whole: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".lora_" in name or _KEPT in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer in scaling and layer != name:
            tensor = _with_adapter(tensor, weights, layer, scaling[layer])
        whole[name.replace(".base_layer.", ".").replace(_TRAINED, ".")] = tensor
    return whole


def _with_adapter(base: Tensor, weights: Mapping[str, Tensor], layer: str, scale: float) -> Tensor:
    up, down = (weights[f"{layer}.lora_{side}.{NAME}.weight"].float() for side in "BA")
    sum_ = base.float() + scale * up @ down
    lengths = weights.get(f"{layer}.lora_magnitude_vector.{NAME}.weight")
    if lengths is not None:
        sum_ *= (lengths.float() / torch.linalg.norm(sum_, dim=1))[:, None]
    return sum_.to(base.dtype)


def write_adapter(model: PreTrainedModel, weights: Mapping[str, Tensor], settings: ModelSettings, folder: Path) -> None:
    """The folder that `peft.PeftModel.from_pretrained` loads on the base."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, state_dict=dict(weights), adapter_name=NAME, save_embedding_layers=False)
    folder.mkdir(parents=True)
    save_file({f"base_model.model.{name}": tensor.contiguous().clone() for name, tensor in state.items()},
              folder / "adapter_model.safetensors", metadata={"format": "pt"})  # fmt: skip
    config: Any = model.peft_config[NAME]
    config.base_model_name_or_path, config.revision, config.inference_mode = settings.path, settings.revision, True
    config.task_type = "CAUSAL_LM"
    config.save_pretrained(str(folder))
