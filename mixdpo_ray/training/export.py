"""The trained model as a folder that `AutoModelForCausalLM.from_pretrained` loads: whole or not there."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo_ray import storage
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.model import without_bars
from mixdpo_ray.training.settings import LoraSettings
from mixdpo_ray.training.world import World

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

INSIDE = "model."  # where a Scorer holds the language model


def export(
    policy: Policy, tokenizer: PreTrainedTokenizerBase, job: TrainingJob, metrics: Mapping[str, Any], world: World
) -> str:
    """Collective: under ZeRO-3 rank 0 gathers the weights from all ranks. The folder's path."""
    target = storage.join(job.run, "model")
    weights = consolidated(policy)
    if world.leads:
        if job.model.lora is not None:
            weights = merged(weights, job.model.lora)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=_beside(job.run)) as temporary:
            folder = Path(temporary) / "model"
            with storage.explained(str(folder)), without_bars():
                _write(policy.scorer.model, weights, folder, trust=job.model.trust_remote_code)
                tokenizer.save_pretrained(folder)
                (folder / "README.md").write_text(model_card(job, metrics))
            _publish(str(folder), target)
    dist.barrier()
    return target


def consolidated(policy: Policy) -> dict[str, Tensor]:
    """Collective. The language model's whole state on rank 0's host memory; empty elsewhere under ZeRO-3."""
    return {name.removeprefix(INSIDE): tensor.detach().cpu() for name, tensor in policy.state().items()}


def merged(weights: Mapping[str, Tensor], lora: LoraSettings) -> dict[str, Tensor]:
    """Base weights plus alpha / rank * B A, under their own names; computed in float32."""
    whole: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        adapter = name.removesuffix(".base_layer.weight")
        if (down := weights.get(f"{adapter}.lora_A.default.weight")) is not None and adapter != name:
            up = weights[f"{adapter}.lora_B.default.weight"]
            tensor = (tensor.float() + lora.alpha / lora.rank * up.float() @ down.float()).to(tensor.dtype)
        whole[plain] = tensor
    return whole


def model_card(job: TrainingJob, metrics: Mapping[str, Any]) -> str:
    """What was trained, on which data, by which recipe, and how it did on held-out pairs."""
    data: Mapping[str, Any] = job.card.get("data", {})
    final = {name: value for name, value in metrics.items() if isinstance(value, float | int)}
    lines = [
        "---", "library_name: transformers", f"base_model: {job.model.path}", "tags: [preference-tuning, mixdpo]",
        "---", "", f"# {job.model.path}, tuned with MixDPO", "",
        f"Objective: `{type(job.objective).__name__}` {job.objective.model_dump_json()} on easy pairs, supervised "
        f"fine-tuning on hard ones (mode `{job.curriculum.mode}`, threshold "
        f"{job.curriculum.threshold.model_dump_json(exclude_none=True)}).", "",
        f"- training fingerprint: `{job.fingerprint}`",
        f"- data fingerprint: `{data.get('content_digest', '')}`",
        f"- pairs: {data.get('rows_kept', 'unknown')} kept of {data.get('rows_in', 'unknown')}",
        *([f"- {job.card['note']}"] if "note" in job.card else []), "",
        "## Margins of the training pairs", "", _fenced(data.get("margins", {})), "",
        "## Held-out pairs", "", "| metric | value |", "|---|---|",
        *(f"| {name} | {value:.6g} |" for name, value in final.items()), "",
        "## Recipe", "", _fenced(job.card.get("recipe", {})), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _fenced(content: object) -> str:
    return "```json\n" + json.dumps(content, indent=2, default=str) + "\n```"


def _write(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path, *, trust: bool) -> None:
    """Through a shell of the same class without adapters or shards, so that names and ties are the library's own."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(model.config, trust_remote_code=trust)
    shell.generation_config = model.generation_config
    shell.config.use_cache = True
    shell.save_pretrained(folder, state_dict=weights)


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
