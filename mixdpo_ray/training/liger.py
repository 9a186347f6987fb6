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
from mixdpo_ray.training.settings import Kernels

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


Names = dict[str, Any]  # of a module of Python or of torch, and what they mean


class Replaced:
    """What other kernels put into one model; nothing where none are asked for."""

    def __init__(self, *changes: tuple[Names, Names, Names]):
        """Each: where names have changed, what they meant before, and what they mean now."""
        self._changes = changes

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run the body with the model's own layers."""
        self.remove()
        try:
            yield
        finally:
            for names, _, theirs in self._changes:
                names.update(theirs)

    def remove(self) -> None:
        for names, own, theirs in self._changes:
            for name in theirs:
                names.pop(name)
            names.update(own)


def use_kernels(model: PreTrainedModel, kernels: Kernels) -> Replaced:
    """Let a model compute with other kernels than its own."""
    if kernels == "none":
        return Replaced()
    namespaces = [vars(sys.modules[type(model).__module__]), *(vars(module) for module in model.modules())]
    before = [dict(names) for names in namespaces]
    _put_into(model)
    return Replaced(*map(_changes, namespaces, before))


def _changes(names: Names, before: Names) -> tuple[Names, Names, Names]:
    theirs = {name: value for name, value in names.items() if name not in before or before[name] is not value}
    return names, {name: before[name] for name in theirs if name in before}, theirs


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
