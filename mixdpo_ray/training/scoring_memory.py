"""What one worker needs that only runs a model, by arithmetic: for its weights, and for its largest batch.

P weights of e bytes each, W workers that share them in shards, M the weights of the largest layer (embedding, output,
or one matrix). Bytes on a worker's device:

    weights     e P             in shards e P / W
    gathered    0               in shards e min(P, 2 M + A): the layer at work, and what is fetched ahead of it
    activations n e (4 h + 3 i) n tokens of a batch, in a layer at work
    logits      GPU: e c v      CPU: c v (e + 4), 4 c v in float32, and 4 of at most B of them; what this and the
                                last states, n e 3 h, exceed the activations by
    cache       2 e k L n       of keys and values, where answers are written

B is NORMALISED_AT_ONCE, A is FETCHED_AHEAD, or M if that is less. Offloaded shards lie in the host's memory. While they
are loaded, the host of rank 0 holds the whole checkpoint.

Compared with what the kernel counts of processes on CPUs that run 26 million weights, whole and over 2 and 4 ranks, in
both number formats: -2 to +2 %. On GPUs, and with caches of keys and values, it was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.memory_estimate import CPU_RUNTIME, CUDA_RUNTIME, ModelShape, WorkerMemory, shape_from
from mixdpo_ray.training.selected_logps import NORMALISED_AT_ONCE
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.sharded_model import fetched_ahead


@dataclass(frozen=True)
class ScoredShape:
    shape: ModelShape
    largest: int  # weights of the largest layer

    @classmethod
    def read(cls, settings: ModelSettings, kind: str) -> Self:
        """Read the shape of a configuration: the model is built without storage. `kind`: its class of transformers."""
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
        return cls(shape_from(config, shell, settings), max(parameter.numel() for parameter in shell.parameters()))

    def for_worker(
        self, tokens: int, logits: int, shards: int | None, *, gpu: bool, cached: bool = False, offload: bool = False
    ) -> WorkerMemory:
        """`logits`: positions whose logits exist at once; `shards`: workers that share the model, None where each
        holds it whole.
        """
        shape, element = self.shape, self.shape.element
        gathered = min(shape.parameters, 2 * self.largest + fetched_ahead(self.largest))
        activations = tokens * element * (4 * shape.hidden + 3 * shape.intermediate)
        behind = tokens * element * 3 * shape.hidden + self._logits(logits, gpu=gpu)
        device = {
            "weights": element * shape.parameters // (shards or 1),
            "gathered": 0 if shards is None else element * gathered,
            "activations": activations,
            "logits": max(0, behind - activations),
            "cache": 2 * element * shape.keys * shape.layers * tokens if cached else 0,
            "runtime": CUDA_RUNTIME if gpu else CPU_RUNTIME,
        }
        host = {"weights": device.pop("weights")} if gpu and offload and shards is not None else {}
        return WorkerMemory({name: size for name, size in device.items() if size}, host)

    def _logits(self, positions: int, *, gpu: bool) -> int:
        numbers, element = positions * self.shape.vocabulary, self.shape.element
        if gpu:
            return element * numbers
        return numbers * (4 if element == 4 else element + 4) + 4 * min(numbers, NORMALISED_AT_ONCE)
