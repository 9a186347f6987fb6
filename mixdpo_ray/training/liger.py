"""Liger's kernels in place of a model's own norms, rotary positions and MLPs, and the model's own again when asked.

Liger binds other forward passes to the modules of a model, and puts functions into transformers' file of its family,
where every model of the process would find them: so both are noted, and taken back when the model is closed.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mixdpo_ray.errors import ModelError

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


class LigerKernels:
    """What Liger put into one model."""

    def __init__(self, model: PreTrainedModel):
        family = vars(sys.modules[type(model).__module__])
        modules = [vars(module) for module in model.modules()]
        kept, own = dict(family), [dict(names) for names in modules]
        _put_into(model)
        self._changed = [_changes(family, kept), *map(_changes, modules, own)]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run the body with the model's own layers."""
        self.remove()
        try:
            yield
        finally:
            for names, _, theirs in self._changed:
                names.update(theirs)

    def remove(self) -> None:
        for names, own, theirs in self._changed:
            for name in theirs:
                names.pop(name)
            names.update(own)


Names = dict[str, Any]


def _changes(names: Names, kept: Names) -> tuple[Names, Names, Names]:
    """Where names have changed, what they meant before, and what they mean now."""
    theirs = {name: value for name, value in names.items() if name not in kept or kept[name] is not value}
    return names, {name: kept[name] for name in theirs if name in kept}, theirs


def _put_into(model: PreTrainedModel) -> None:
    """Everything but Liger's losses: those of this project are none of them."""
    if not torch.cuda.is_available():
        raise ModelError("model.kernels liger needs a GPU, and there is none here: set it to none")
    if importlib.util.find_spec("liger_kernel") is None:
        raise ModelError("model.kernels liger: pip install 'mixdpo_ray[liger]' on every node, or set it to none")
    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # of backends for other accelerators
    from liger_kernel.transformers import monkey_patch

    kind = model.config.model_type
    if kind not in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ModelError(f"model.kernels liger: Liger has no kernels for {kind} models; set it to none")
    monkey_patch._apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)
