"""The causal language model that a recipe names, and the adapters put into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.adapters import add_adapters
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.model_files import refuse_missing_folder
from mixdpo_ray.training.quiet import quiet
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def load_model(settings: ModelSettings, where: str = "model.path", *, recompute: bool = False) -> PreTrainedModel:
    """Weights in `settings.dtype`, with adapters where lora is set, and no dropout: policy = reference at the start.

    `recompute`: activations in the backward pass, instead of keeping them.
    """
    from transformers import AutoModelForCausalLM

    quantised = _in_four_bits(settings) if settings.lora is not None and settings.lora.quantize else {}
    model: PreTrainedModel = load_pretrained(AutoModelForCausalLM, settings, where, **quantised)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # it would round the scales of 4 bits for good, to evaluate
            module.support_avx512bf16_for_cpu = False
    _without_dropout(model)
    model.config.use_cache = False
    if settings.lora is not None:
        add_adapters(model, settings.lora)
    if recompute:
        recompute_activations(model)
    return model


def _in_four_bits(settings: ModelSettings) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    with quiet(logging.WARNING):  # on a CPU it tells which kernels it would like
        import bitsandbytes  # noqa: F401
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
    )
    return {"quantization_config": config}


def load_pretrained(kind: Any, settings: ModelSettings, where: str, **options: Any) -> Any:
    """What an Auto class of transformers makes of the folder or name; `where` is the setting that gave it."""
    refuse_missing_folder(where, settings.path)
    try:
        with without_bars(), brief_hub(settings.path, settings.revision):
            return kind.from_pretrained(
                settings.path,
                revision=settings.revision,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=settings.attn_implementation,
                trust_remote_code=settings.trust_remote_code,
                **options,
            )
    except (OSError, ValueError, ImportError) as error:  # ImportError: an attention that is not installed
        reason = why_not_loaded(settings.path, error)
        if "does not support an attention implementation" in str(error):  # Gemma 2 has no sdpa
            reason = f"it has no attention by {settings.attn_implementation}: set model.attn_implementation=eager"
        raise ModelError(f"{where} {settings.path!r} cannot be loaded: {reason}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """One bar per worker for reading and writing weights is nothing that people can act on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def recompute_activations(model: PreTrainedModel) -> None:
    """Keep no more of a layer than its inputs, and run it again in the backward pass (gradient checkpointing).

    transformers 5.24 gave the method its present name, and 6 will not know the one before.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # attention reads its probability from a number, not from a module
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
