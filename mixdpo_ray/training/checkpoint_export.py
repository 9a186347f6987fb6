"""The model of a checkpoint, as a folder that `from_pretrained` loads. One process does it, in the host's memory.

Below ZeRO-3 a shard holds all weights; under ZeRO-3 the engine's conversion puts them together. Adapters are merged, as
at the end of a run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixdpo_ray import storage
from mixdpo_ray.checksums import what_is_wrong
from mixdpo_ray.errors import CheckpointError
from mixdpo_ray.training.checkpoints import CheckpointManifest, damages, read_manifest, refuse_writable_by_others
from mixdpo_ray.training.engine import whole_weights
from mixdpo_ray.training.export import INSIDE, export_permissions, save_tokenizer, whole_model, write_model
from mixdpo_ray.training.model import load_model, without_bars
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer

_WHOLE = "mp_rank_00_model_states.pt"


def export_checkpoint(path: str, model: ModelSettings, folder: Path) -> None:
    """`model`: what the run began with."""
    manifest = _verified(path)
    with tempfile.TemporaryDirectory(prefix="mixdpo_ray-") as temporary:
        shards = Path(storage.absolute(path))
        if not storage.is_local(path):
            shards = Path(temporary) / "shards"
            storage.copy(path, str(shards))
        weights = _weights_in(shards, manifest.zero_stage)
    loaded = load_model(model)
    _load(loaded, weights, path)
    state = loaded.state_dict()
    with without_bars():
        write_model(loaded, whole_model(loaded, state, model), folder, trust=model.trust_remote_code)
    save_tokenizer(load_tokenizer(model), folder)
    export_permissions(folder)


def _verified(path: str) -> CheckpointManifest:
    refuse_writable_by_others(path)
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: its manifest is damaged ({what_is_wrong(error)}): take another one") from error
    if problems := damages(path, manifest):
        raise CheckpointError(f"{path} is damaged ({problems[0]}): take another one, or restore it from a copy")
    return manifest


def _weights_in(shards: Path, zero_stage: int) -> dict[str, Tensor]:
    """All weights that were trained, by their names in the language model; in their shape or flat."""
    found = _loaded(shards / _WHOLE)["module"] if zero_stage < 3 else whole_weights(shards)
    return {name.removeprefix(INSIDE): tensor for name, tensor in found.items()}


def _loaded(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=False)


def _load(model: torch.nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    own = dict(model.named_parameters())
    trained = {name for name, parameter in own.items() if parameter.requires_grad}
    if absent := sorted(trained - set(weights)):
        raise CheckpointError(f"{path} lacks {absent[0]} and {len(absent) - 1} others: is it of another model?")
    with torch.no_grad():
        for name in trained:
            own[name].copy_(weights[name].flatten()[: own[name].numel()].view_as(own[name]))
