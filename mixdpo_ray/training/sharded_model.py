"""A model that is only run, under ZeRO-3 without an optimizer: no rank ever holds it whole.

Beside its shard a rank has the weights of the layer that it is at, those of the next ones that are fetched ahead, and
what is too small to be worth fetching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from mixdpo_ray.training.engine import load_deepspeed, sharded_loading
from mixdpo_ray.training.quiet import quiet
from mixdpo_ray.training.settings import Dtype
from mixdpo_ray.training.world import World

FETCHED_AHEAD = 50_000_000  # weights
SMALL = 16_384
_Model = TypeVar("_Model", bound=nn.Module)


def load_in_shards(make: Callable[[], _Model], world: World, dtype: Dtype, *, offload: bool = False) -> _Model:
    """Collective. `make` reads a model by transformers; `offload`: to the host's memory."""
    library, config = load_deepspeed(world), shards_config(dtype, offload=offload)
    with sharded_loading(config, 3):
        model = make().eval()
    largest = max(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    zero = config["zero_optimization"]
    zero["stage3_prefetch_bucket_size"] = fetched_ahead(largest)
    # what bounds the fetching ahead: a bucket more is fetched at every module, also at those that have no weights
    zero["stage3_max_live_parameters"] = largest + fetched_ahead(largest)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with quiet():
        library.initialize(model=model, config=config, dist_init_required=False)
    for module in model.modules():
        parameters: Any = module._parameters
        parameters._in_forward = True  # weights that another module reads are gathered too
    return model


def fetched_ahead(largest: int) -> int:
    """How many weights; `largest`: those of the largest layer."""
    return min(FETCHED_AHEAD, largest)


def shards_config(dtype: Dtype, *, offload: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": False,
        "stage3_param_persistence_threshold": SMALL,
    }
    if offload:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": zero,
        "steps_per_print": None,
    }
