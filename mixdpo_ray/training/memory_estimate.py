"""What one worker needs, by arithmetic: nothing is loaded, and no GPU is asked.

P weights of which T are trained, e bytes each (2 or 4), W workers, S = W where ZeRO shards that thing and 1 where not,
B = a bucket's elements or T, whichever is less. Bytes on a worker's device, as engine.py sets DeepSpeed up:

    weights     e P / S             sharded in stage 3
    gathered    e min(P, 10^9)      stage 3: what DeepSpeed keeps whole at a time
    master      4 T / S             float32 copies; none for float32 weights without ZeRO
    moments     8 T / S             of AdamW; others in optimizer_memory.py, with what an update takes for a while
    gradients   stage 0: e T        stage 1: 4 T (and 4 T / S for float32 weights)        stages 2, 3: 4 T / S
    reduction   stage 0: 4 T        stage 1: 4 T; float32 e B        stage 2: e B          stage 3: 2 e B
    activations n l (L + 1), or with gradient checkpointing n (e h L + 2 l), and n l0 behind the last layer
    logits      GPU: e c v          CPU: c v (4 + e), and c v 4 for float32
    runtime     CUDA's and NCCL's own, or Python and its libraries

n tokens in a forward pass: padded, 2 x per_device_train_batch_size x max_length, both answers of full length; packed,
per_device_train_batch_size x (prompt + chosen + rejected) of the longest pair, or the tokens that it names (if the
longest pair has no more), and of them a slice where deepspeed.sequence_parallel workers share a row. L layers of width
h, with i in the middle, q and k wide queries and keys; c = logp_chunk_tokens or n, v the vocabulary. A layer keeps per
token l = 2 l0 + e (q + 2 k + 2 h) + 4 e i bytes, and its norm l0 = (4 + 2 e) h, or 2 e h in float32; with Liger's
kernels 3 e i and always 2 e h. k experts, i wide together, keep 2 k e h more: copies of what goes in and comes out,
sorted by expert. The reductions of stages 0 and 1 go through at most 5 x 10^8 elements at a time; stage 0, and 1 with
bfloat16, reduce when a step's activations are gone: only what exceeds activations and logits counts. Where adapters
alone are trained, a norm keeps e h less, and bfloat16 no layer besides the L. Offloading moves optimizer and gradients,
or weights, to the host.

The first seven lines were compared with the peak of all tensors under DeepSpeed on two CPU workers (stages 0 to 3, both
number formats: -17 to +11 %), activations with what autograd keeps (Llama, Qwen2, Mistral: 5 %). On an H100, with 0.5
billion weights in bfloat16, packed rows of 2,800 to 45,000 tokens and no moments yet: -5 to +5 %, with Liger's kernels
too. Experts, on two CPU workers: -13 to +15 %. Sliding windows and attention that is not fused are not modelled, nor is
what the allocator loses between blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.adapter_memory import Adapters, adapters_of
from mixdpo_ray.training.attention import why_not_packed
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.optimizer_memory import Matrices, moment_bytes, update_bytes
from mixdpo_ray.training.settings import (
    BUCKETS,
    DeepSpeedSettings,
    Kernels,
    ModelSettings,
    OptimizerName,
    TrainSettings,
)

GIB = 1 << 30
LIVE_PARAMETERS = 10**9  # DeepSpeed's stage3_max_live_parameters
REDUCED_AT_ONCE = 5 * 10**8  # elements that the engine flattens for one all-reduce
CUDA_RUNTIME = 3 * GIB // 2
CPU_RUNTIME = 3 * GIB // 4


@dataclass(frozen=True)
class ModelShape:
    parameters: int
    trained: int
    element: int  # bytes
    layers: int
    hidden: int
    intermediate: int
    queries: int  # width of all heads together
    keys: int
    vocabulary: int
    kind: str = ""
    why_padded: str | None = None  # why its rows are padded where the recipe packs them (attention.py)
    kernels: Kernels = "none"
    experts: int = 0  # that each token goes through, together `intermediate` wide
    heads: tuple[int, int] = (0, 0)  # of queries and of keys; not known by a name alone
    matrices: Matrices = field(default_factory=Matrices)
    adapters: Adapters = field(default_factory=Adapters)

    @property
    def norm_bytes(self) -> int:
        """Per token. A model's own norms compute in float32, whatever goes in, and keep that."""
        computed = 4 if self.element == 2 and self.kernels == "none" else 0
        return computed * self.hidden + (1 if self.frozen else 2) * self.element * self.hidden

    @property
    def frozen(self) -> bool:
        """Whether adapters alone are trained: norms then keep nothing for weights of their own."""
        return self.adapters.weights > 0

    @property
    def layer_bytes(self) -> int:
        """Per token, what one layer keeps for its backward pass."""
        attention = self.queries + 2 * self.keys + 2 * self.hidden
        wide = 4 if self.kernels == "none" else 3  # Liger computes the activation of the MLP again
        sorted_by_expert = 2 * self.experts * self.hidden  # a copy of its input and of its output for each
        return 2 * self.norm_bytes + self.element * (attention + wide * self.intermediate + sorted_by_expert)


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes of one worker by term, on its device and in its host's memory. On CPU the device is the host."""

    device: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        return sum(self.host.values())

    def largest(self, count: int = 3) -> list[tuple[str, int]]:
        return sorted(self.device.items(), key=lambda term: -term[1])[:count]


def shape_of(settings: ModelSettings) -> ModelShape:
    """The shape of a model from its configuration alone: the model is built without storage."""
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = settings.trust_remote_code
    try:
        with brief_hub(settings.path):
            config = AutoConfig.from_pretrained(settings.path, revision=settings.revision, trust_remote_code=trust)
        with torch.device("meta"):
            shell = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except (OSError, ValueError, ImportError) as error:
        reason = why_not_loaded(settings.path, error)
        raise ModelError(f"model.path {settings.path!r} has no configuration to build from: {reason}") from error
    return shape_from(config, shell, settings)


def shape_by_name(settings: ModelSettings) -> ModelShape | None:
    """What a name such as Llama-3-8B says of a model: how many weights, and nothing of what activations they make."""
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", settings.path.rpartition("/")[2], re.IGNORECASE)
    if match is None:
        return None
    weights, element = round(float(match[1]) * 1e9), getattr(torch, settings.dtype).itemsize
    return ModelShape(weights, 0 if settings.lora else weights, element, 0, 0, 0, 0, 0, 0)


def shape_from(config: Any, shell: Any, settings: ModelSettings) -> ModelShape:
    text = config.get_text_config()
    parameters = sum(parameter.numel() for parameter in shell.parameters())
    adapters = adapters_of(shell, settings.lora)
    heads = text.num_attention_heads
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        parameters=parameters + adapters.weights,
        trained=adapters.weights if settings.lora else parameters,
        element=getattr(torch, settings.dtype).itemsize,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=_width_of_mlp(text),
        queries=heads * head,
        keys=key_heads * head,
        vocabulary=text.vocab_size,
        kind=type(shell).__name__,
        kernels=settings.kernels,
        heads=(heads, key_heads),
        matrices=Matrices.of(shell) if settings.lora is None else adapters.matrices,
        adapters=adapters,
        why_padded=why_not_packed(shell, settings.attn_implementation) if settings.packing else None,
        experts=getattr(text, "num_experts_per_tok", None) or 0,
    )


def _width_of_mlp(text: Any) -> int:
    """The width between up and down, of all experts together that a token goes through."""
    dense: int = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    experts = getattr(text, "num_experts_per_tok", None)
    if not experts:
        return dense
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    return int(experts * (getattr(text, "moe_intermediate_size", None) or dense) + shared)


def pass_tokens(train: TrainSettings, max_length: int, packed_pair: int | None = None) -> int:
    """The most tokens of one forward pass, all as long as they may be.

    `packed_pair`: tokens of the longest packed pair; None where rows are padded.
    """
    size = train.per_device_train_batch_size
    if isinstance(size, TokenBudget):
        return max(size.tokens, packed_pair or 0)
    return size * (2 * max_length if packed_pair is None else packed_pair)


def worker_memory(
    shape: ModelShape, train: TrainSettings, deepspeed: DeepSpeedSettings, tokens: int, workers: int, *, gpu: bool
) -> WorkerMemory:
    """`tokens`: the most of one forward pass."""
    tokens = -(-tokens // deepspeed.sequence_parallel)
    activations, logits = _activations(shape, train, tokens), _logits(shape, train, tokens, gpu=gpu)
    states = _states(shape, train, deepspeed, workers)
    update = _update(shape, train, deepspeed, states, workers, gpu=gpu)
    if deepspeed.zero_stage == 0 or (deepspeed.zero_stage == 1 and shape.element == 2):
        states["reduction"] = max(0, states["reduction"] - activations - logits)
    device = {
        **states,
        "activations": activations,
        "logits": logits,
        "update": max(0, update - activations - logits),  # when those are gone
        "runtime": CUDA_RUNTIME if gpu else CPU_RUNTIME,
    }
    host: dict[str, int] = {}
    if gpu:
        if deepspeed.offload_optimizer:
            host |= {name: device.pop(name) for name in ("master", "moments", "gradients")}
        if deepspeed.offload_parameters:
            host["weights"] = device.pop("weights")
        if deepspeed.zero_stage < 3:
            host["loading"] = shape.element * shape.parameters  # the whole model, before it is moved
        host["runtime"] = CPU_RUNTIME
    return WorkerMemory({name: size for name, size in device.items() if size}, host)


def _states(shape: ModelShape, train: TrainSettings, deepspeed: DeepSpeedSettings, workers: int) -> dict[str, int]:
    stage, element, trained = deepspeed.zero_stage, shape.element, shape.trained
    half, sharded = element == 2, workers if stage else 1
    bucket = element * min(BUCKETS["reduce_bucket_size"], trained)
    whole = 4 * min(trained, REDUCED_AT_ONCE)
    gradients = {
        0: element * trained,
        1: 4 * trained + (0 if half else 4 * trained // sharded),
        2: 4 * trained // sharded,
        3: 4 * trained // sharded,
    }
    reduction = {
        0: 4 * trained if half else whole,
        1: max(whole, element * trained) + (4 * trained if train.optimizer.name == "muon" else 0) if half else bucket,
        2: bucket,
        3: 2 * bucket,
    }
    return {
        "weights": _weights(shape) // (workers if stage == 3 else 1),
        "gathered": element * min(shape.parameters, LIVE_PARAMETERS) if stage == 3 else 0,
        "master": 4 * trained // sharded if half or stage else 0,
        "moments": moment_bytes(trained, shape.matrices, train.optimizer.name) // sharded,
        "gradients": gradients[stage],
        "reduction": reduction[stage],
    }


def _weights(shape: ModelShape) -> int:
    return shape.element * shape.parameters - shape.adapters.saved_bytes(shape.element)


def _update(
    shape: ModelShape,
    train: TrainSettings,
    deepspeed: DeepSpeedSettings,
    states: dict[str, int],
    workers: int,
    *,
    gpu: bool,
) -> int:
    """What updating takes, less what of the states is gone by then."""
    stage, half, on_gpu = deepspeed.zero_stage, shape.element == 2, gpu and not deepspeed.offload_optimizer
    together = shape.trained // workers if stage else shape.matrices.largest
    gone = {(1, False): states["reduction"] + 4 * shape.trained, (2, True): states["reduction"]}
    gone[3, False] = states["reduction"] // 2
    return update_bytes(together, shape.matrices, train.optimizer.name, gpu=on_gpu) - gone.get((stage, half), 0)


def _activations(shape: ModelShape, train: TrainSettings, tokens: int) -> int:
    if train.gradient_checkpointing:
        kept = shape.element * shape.hidden * shape.layers + 2 * shape.layer_bytes
    else:
        at_work = 0 if shape.frozen and shape.element == 2 else 1  # no weights' gradients
        kept = shape.layer_bytes * (shape.layers + at_work)
    return tokens * (kept + shape.norm_bytes + shape.adapters.kept_bytes(shape.element))


def _logits(shape: ModelShape, train: TrainSettings, tokens: int, *, gpu: bool) -> int:
    """Those of one chunk, in the model's format; on a CPU in float32 besides (fused_logps.py)."""
    together = min(train.logp_chunk_tokens, tokens)
    return together * shape.vocabulary * (shape.element if gpu or shape.element == 4 else shape.element + 4)


def checkpoint_bytes(shape: ModelShape, deepspeed: DeepSpeedSettings, optimizer: OptimizerName = "adamw") -> int:
    """All shards of one checkpoint: weights (adapters only, with LoRA), float32 copies and the optimizer's moments."""
    master = 4 * shape.trained if shape.element == 2 or deepspeed.zero_stage else 0
    weights = 0 if deepspeed.zero_stage == 3 else shape.element * shape.trained
    return weights + master + moment_bytes(shape.trained, shape.matrices, optimizer)


def model_bytes(shape: ModelShape) -> int:
    """The bytes of the exported model, whose adapters are merged."""
    base = shape.parameters - (shape.trained if shape.trained < shape.parameters else 0)
    return shape.element * base
