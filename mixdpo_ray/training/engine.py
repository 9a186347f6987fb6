"""The policy under DeepSpeed: built from settings, stepped with a guard against gradients that are not finite.

DeepSpeed averages gradients over ranks and would divide by its own count of micro-steps. Losses here carry global
denominators, so accumulation is left to the caller and a loss is multiplied by the number of ranks (step.py).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from mixdpo_ray.errors import NonFiniteError, ResourceError
from mixdpo_ray.training.logps import Scorer
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.settings import DeepSpeedSettings, ModelSettings, OptimizerSettings, TrainSettings
from mixdpo_ray.training.world import World


class GradientGuard:
    """Runs before every update of parameters: knows the gradients' norm, and refuses one that is not finite.

    Without ZeRO, float32 gradients are clipped here as well, since DeepSpeed then hides their norm.
    """

    def __init__(self, max_norm: float):
        self.max_norm = max_norm
        self.engine: Any = None
        self.norm = 0.0
        self.clips = False

    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not self.clips:
            self.norm = float(self.engine.optimizer._global_grad_norm)
        else:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.norm = float(torch.nn.utils.get_total_norm(gradients))
            if self.max_norm and math.isfinite(self.norm):
                for gradient in gradients:
                    gradient.mul_(min(1.0, self.max_norm / (self.norm + 1e-6)))
        if not math.isfinite(self.norm) or self.norm < 0:
            raise NonFiniteError("the gradient is not finite")


@dataclass(frozen=True)
class Policy:
    """The model that is trained."""

    engine: Any  # deepspeed.DeepSpeedEngine around a Scorer
    guard: GradientGuard
    padding: int
    memory: dict[str, Tensor] = field(default_factory=dict)  # what a StepObjective keeps from step to step

    @property
    def scorer(self) -> Scorer:
        scorer: Scorer = self.engine.module
        return scorer

    @property
    def grouped(self) -> bool:
        """Whether a rank may run more passes than another (batch.py)."""
        return int(self.engine.zero_optimization_stage()) < 3

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self.engine.basic_optimizer
        return optimizer

    def close(self) -> None:
        """Let go of its memory: DeepSpeed's hooks are cycles that Python's collector cannot see."""
        with quiet():
            self.engine.destroy()


def make_policy(
    model: ModelSettings,
    train: TrainSettings,
    deepspeed: DeepSpeedSettings,
    world: World,
    padding: int,
    *,
    from_universal: bool = False,
) -> Policy:
    """Collective: every rank builds its part."""
    library = _deepspeed(world)
    config = deepspeed_config(model, train, deepspeed, from_universal=from_universal)
    with _sharded_loading(config, deepspeed.zero_stage):
        scorer = Scorer(load_model(model))
    if train.gradient_checkpointing:
        scorer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _bound_buckets(config, scorer)
    optimizer = adamw(scorer, train.optimizer)
    with quiet():
        engine, *_ = library.initialize(model=scorer, optimizer=optimizer, config=config, dist_init_required=False)
    guard = GradientGuard(train.max_grad_norm)
    guard.engine, guard.clips = engine, engine.optimizer is optimizer
    optimizer.register_step_pre_hook(guard)
    engine.train()
    return Policy(engine, guard, padding)


def deepspeed_config(
    model: ModelSettings, train: TrainSettings, deepspeed: DeepSpeedSettings, *, from_universal: bool = False
) -> dict[str, Any]:
    half = model.dtype == "bfloat16"
    clips_itself = half or deepspeed.zero_stage > 0
    zero: dict[str, Any] = {
        "stage": deepspeed.zero_stage,
        "reduce_bucket_size": deepspeed.reduce_bucket_size,
        "allgather_bucket_size": deepspeed.allgather_bucket_size,
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    if deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": train.per_device_train_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": train.max_grad_norm if clips_itself else 0.0,  # written always: the default is 1
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
        # bfloat16 sums of many micro-steps lose small contributions
        **({"data_types": {"grad_accum_dtype": "fp32"}} if half and deepspeed.zero_stage else {}),
        **({"checkpoint": {"load_universal": True}} if from_universal else {}),
        "steps_per_print": None,
    }


def adamw(scorer: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Biases and norms are not decayed, as in transformers."""
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    shapes = [getattr(parameter, "ds_shape", parameter.shape) for parameter in trained]  # ds_shape: under ZeRO-3
    groups = [{"params": trained}]
    if settings.weight_decay:
        wide = [parameter for parameter, shape in zip(trained, shapes, strict=True) if len(shape) > 1]
        narrow = [parameter for parameter, shape in zip(trained, shapes, strict=True) if len(shape) <= 1]
        groups = [{"params": wide}, {"params": narrow, "weight_decay": 0.0}]  # type: ignore[dict-item]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_learning_rate(policy: Policy, rate: float) -> None:
    for group in policy.optimizer.param_groups:
        group["lr"] = rate


def reset_optimizer(policy: Policy) -> None:
    """Zero the moments and the step counters in place: bit for bit what a new optimizer has."""
    for state in policy.optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                value.zero_()


def update(policy: Policy) -> float:
    """Reduce the gradients, clip them, move the weights; their norm before that. Nothing moves if it is not finite."""
    policy.engine.step()
    if not policy.engine.was_step_applied():  # ZeRO skips such a step without a word
        raise NonFiniteError("the gradient is not finite")
    return policy.guard.norm


def join_group(world: World) -> None:
    """Process groups come from whoever started the workers; a single process makes its own."""
    if dist.is_initialized():
        return
    if world.size != 1:
        raise ResourceError(f"rank {world.rank} of {world.size} has no process group: start the workers through Ray")
    backend = "nccl" if world.torch_device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)


def _deepspeed(world: World) -> Any:
    """The library, after what it reads while it is imported is set, and without extensions of its own."""
    if world.torch_device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    else:
        torch.cuda.set_device(world.torch_device)
    # DeepSpeed takes it for the number of the device
    os.environ["LOCAL_RANK"] = str(world.torch_device.index or 0 if world.device != "cpu" else world.local_rank)
    with quiet():
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # On CPU it would compile one on a machine's first start, for a collective that only inference uses, and wait
    # without end where a process was killed while compiling. To ask which can be built starts compilers as well.
    deepspeed.ops.__compatible_ops__ = {}
    with _without_compiler():
        import deepspeed.runtime.zero.muon.original_muon
    return deepspeed


@contextmanager
def _without_compiler() -> Iterator[None]:
    """DeepSpeed's optimizers import Muon, unused here, whose decorator brings torch's compiler: 2 s of CPU time."""
    from deepspeed.runtime import compiler

    compile_function = compiler.compile
    compiler.compile = lambda: compiler.dummy_decorator
    try:
        yield
    finally:
        compiler.compile = compile_function


@contextmanager
def quiet(level: int = logging.INFO) -> Iterator[None]:
    """DeepSpeed tells what it does, by loggers and by print; people want what they can act on."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _sharded_loading(config: dict[str, Any], zero_stage: int) -> Iterator[None]:
    """Under ZeRO-3 no rank ever holds the whole model: transformers shards weights as it reads them."""
    if zero_stage < 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    held = HfDeepSpeedConfig(config)
    yield
    del held


def _bound_buckets(config: dict[str, Any], scorer: nn.Module) -> None:
    """DeepSpeed allocates a whole bucket even for a model that is smaller."""
    sizes = [getattr(parameter, "ds_numel", parameter.numel()) for parameter in scorer.parameters()]
    zero = config["zero_optimization"]
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        zero[name] = min(zero[name], max(sum(sizes), 1))
