"""The trained model as a folder that `AutoModelForCausalLM.from_pretrained` loads: whole or not there."""

from __future__ import annotations

import copy
import stat
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo_ray import storage
from mixdpo_ray.training.adapters import merged, plain_weights, scales, write_adapter
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.model import without_bars
from mixdpo_ray.training.model_card import CardFacts, model_card
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.world import World

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

INSIDE = "model."  # where a Scorer holds the language model


def export(policy: Policy, tokenizer: PreTrainedTokenizerBase, job: TrainingJob, facts: CardFacts, world: World) -> str:
    """Collective: under ZeRO-3 rank 0 gathers the weights from all ranks. The folder's path."""
    lora = job.model.lora
    kinds = {"merged": ["model"], "adapter": ["adapter"], "both": ["model", "adapter"]}[
        lora.export if lora else "merged"
    ]
    weights = consolidated(policy)
    for kind in kinds if world.leads else []:
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=_beside(job.run)) as temporary:
            folder = Path(temporary) / kind
            with storage.explained(str(folder)), without_bars():
                if kind == "adapter":
                    write_adapter(policy.scorer.model, weights, job.model, folder)
                else:
                    whole = whole_model(policy.scorer.model, weights, job.model)
                    write_model(policy.scorer.model, whole, folder, trust=job.model.trust_remote_code)
                save_tokenizer(tokenizer, folder)
                (folder / "README.md").write_text(model_card(job, facts, adapter=kind == "adapter"))
                export_permissions(folder)
            _publish(str(folder), storage.join(job.run, kind))
    dist.barrier()
    return storage.join(job.run, kinds[0])


def consolidated(policy: Policy) -> dict[str, Tensor]:
    """Collective. The language model's whole state on rank 0's host memory; empty elsewhere under ZeRO-3."""
    return {name.removeprefix(INSIDE): tensor.detach().cpu() for name, tensor in policy.state().items()}


def whole_model(model: PreTrainedModel, weights: Mapping[str, Tensor], settings: ModelSettings) -> dict[str, Tensor]:
    """The weights with adapters merged into them; those of a base in 4 bits in the recipe's number format."""
    if settings.lora is None:
        return dict(weights)
    return merged(plain_weights(model, weights, getattr(torch, settings.dtype)), scales(model))


def write_model(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path, *, trust: bool) -> None:
    """Through a shell of the same class without adapters or shards, so that names and ties are the library's own."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # what is written is whole
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    shell.generation_config = model.generation_config
    shell.config.use_cache = True
    shell.save_pretrained(folder, state_dict=weights)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Leave out how it was loaded here, which would stand among its settings."""
    for loaded in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(loaded, None)
    tokenizer.save_pretrained(folder)


def export_permissions(folder: Path) -> None:
    """Give every file the permissions that the umask gave the settings: weights are written as private files."""
    mode = stat.S_IMODE(min(folder.glob("*config.json")).stat().st_mode)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


def _beside(run: str) -> str | None:
    """A temporary folder on the run's own disk, where there is one: publishing is then a rename."""
    if not storage.is_local(run):
        return None
    storage.make_folder(run)
    return str(storage.local(run))


def _publish(folder: str, target: str) -> None:
    if not storage.is_local(target):
        storage.delete(target)
        storage.copy(folder, target)
        return
    old = f"{target}.{uuid.uuid4().hex[:8]}"
    if storage.exists(target):
        storage.move(target, old)
    storage.move(folder, target)
    storage.delete(old)
