"""What one worker needs that only runs a model, by arithmetic: for its weights, and for its largest batch.

P weights of e bytes each, W workers that share them in shards, M the weights of the largest layer (embedding, output,
or one matrix). Bytes on a worker's device:

    weights     e P             in shards e P / W
    gathered    0               in shards e min(P, 2 M + A): the layer at work, and what is fetched ahead of it
    activations n l             n tokens of a batch
    logits      c v 4           CPU: c v (4 + e) where e is 2
    cache       2 e k L n       of keys and values, where answers are written

A layer at work holds per token l = e (4 h + 3 i) bytes, and in bfloat16 8 h for a norm in float32. A = FETCHED_AHEAD,
or M if that is less. The shards lie in the host's memory where weights are offloaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.memory_estimate import CPU_RUNTIME, CUDA_RUNTIME, ModelShape, WorkerMemory, shape_from
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.sharded_model import fetched_ahead


class ScoredShape:
    """The shape of a model that is only run, from its configuration alone: it is built without storage."""

    def __init__(self, config: Any, shell: nn.Module, settings: ModelSettings):
        self.shape: ModelShape = shape_from(config, shell, settings)
        self.largest = max(parameter.numel() for parameter in shell.parameters())

    @classmethod
    def read(cls, settings: ModelSettings, kind: str) -> ScoredShape:
        """`kind`: the class of transformers that loads it."""
        import transformers

        trust = settings.trust_remote_code
        try:
            with brief_hub(settings.path):
                config = transformers.AutoConfig.from_pretrained(
                    settings.path, revision=settings.revision, trust_remote_code=trust
                )
            with torch.device("meta"):
                shell = getattr(transformers, kind).from_config(config, trust_remote_code=trust)
        except (OSError, ValueError, ImportError) as error:
            reason = why_not_loaded(settings.path, error)
            raise ModelError(f"model {settings.path!r} has no configuration to build from: {reason}") from error
        return cls(config, shell, settings)

    def memory(
        self, tokens: int, logits: int, shards: int | None, *, gpu: bool, cached: bool = False, offload: bool = False
    ) -> WorkerMemory:
        """`logits`: positions whose logits exist at once; `shards`: workers that share the model, None where each
        holds it whole.
        """
        shape, element = self.shape, self.shape.element
        half = element == 2
        layer = element * (4 * shape.hidden + 3 * shape.intermediate) + (8 * shape.hidden if half else 0)
        gathered = min(shape.parameters, 2 * self.largest + fetched_ahead(self.largest))
        device = {
            "weights": element * shape.parameters // (shards or 1),
            "gathered": 0 if shards is None else element * gathered,
            "activations": tokens * layer,
            "logits": logits * shape.vocabulary * (4 + (element if half and not gpu else 0)),
            "cache": 2 * element * shape.keys * shape.layers * tokens if cached else 0,
            "runtime": CUDA_RUNTIME if gpu else CPU_RUNTIME,
        }
        host = {}
        if gpu and offload and shards is not None:
            host["weights"] = device.pop("weights")
        return WorkerMemory({name: size for name, size in device.items() if size}, host)
