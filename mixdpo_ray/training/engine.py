"""The policy under DeepSpeed: built from settings, stepped with a guard against gradients that are not finite.

DeepSpeed averages gradients over ranks and would divide by its own count of micro-steps. Losses here carry global
denominators, so accumulation is left to the caller and a loss is multiplied by the number of ranks (step.py).
"""

from __future__ import annotations

import logging
import os
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.training.batch import PairBatch
from mixdpo_ray.training.flat_parameters import flat_matrices
from mixdpo_ray.training.gradient_guard import GradientGuard
from mixdpo_ray.training.length_groups import RowKind, row_kind
from mixdpo_ray.training.logps import MicroLogps, Scorer, check_exactness, pair_logps
from mixdpo_ray.training.muon import Muon
from mixdpo_ray.training.optimizer import make_optimizer, reset, set_rate
from mixdpo_ray.training.quiet import quiet
from mixdpo_ray.training.router_balance import RoutedTokens, RouterBalance
from mixdpo_ray.training.settings import BUCKETS, DeepSpeedSettings, ModelSettings, TrainSettings
from mixdpo_ray.training.world import World


@dataclass(frozen=True)
class Policy:
    """The model that is trained. What runs it is nobody else's affair: this file alone knows DeepSpeed."""

    _engine: Any  # deepspeed.DeepSpeedEngine around a Scorer
    _guard: GradientGuard
    padding: int
    objective_state: dict[str, Tensor] = field(default_factory=dict)  # what a StepObjective keeps from step to step

    @property
    def scorer(self) -> Scorer:
        scorer: Scorer = self._engine.module
        return scorer

    @property
    def balance(self) -> RouterBalance | None:
        return self.scorer.balance

    @property
    def zero_stage(self) -> int:
        return int(self._engine.zero_optimization_stage())

    @property
    def rows(self) -> RowKind:
        gpu = self._engine.device.type != "cpu"
        return row_kind(packed=self.scorer.packed, gpu=gpu, zero_stage=self.zero_stage)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = self._engine.basic_optimizer
        return optimizer

    def logps(self, batch: PairBatch, chunks: int = 1, *, routed: bool = False) -> MicroLogps:
        """One forward pass; under ZeRO-3 every rank runs equally many."""
        return pair_logps(self._engine, batch, chunks, routed=routed)

    def routed(self, batch: PairBatch) -> RoutedTokens:
        """What the routers of a mixture of experts do with a batch."""
        routers: RoutedTokens = self._engine(batch, 0, routed=True)[1]
        return routers

    def check_exactness(
        self, batch: PairBatch, padded: PairBatch, chunks: int, dtype: torch.dtype, suspects: Sequence[str]
    ) -> None:
        check_exactness(self._engine, batch, padded, chunks, dtype, suspects)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Leave out dropout and gradients while the body runs."""
        self._engine.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._engine.train()

    def backward(self, loss: Tensor) -> None:
        """Adds to the gradients, which are averaged over ranks."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def update(self) -> float:
        """Reduce the gradients, clip them, move the weights: their norm before. Nothing moves if it is not finite."""
        self._engine.step()
        if not self._engine.was_step_applied():  # ZeRO skips such a step without a word
            raise NonFiniteError("the gradient is not finite")
        return self._guard.norm

    def set_learning_rate(self, rate: float) -> None:
        set_rate(self.optimizer, rate)

    def reset_optimizer(self) -> None:
        reset(self.optimizer)

    def save(self, folder: str, tag: str, *, adapters: bool) -> None:
        """Collective. This rank's shards, inside `folder`/`tag`."""
        self._engine.save_checkpoint(
            folder, tag=tag, client_state={}, save_latest=False, exclude_frozen_parameters=adapters
        )

    def load(self, folder: str, tag: str, *, adapters: bool) -> bool:
        """Collective. Whether there was something to load."""
        with quiet(logging.WARNING):
            loaded, _ = self._engine.load_checkpoint(
                folder, tag=tag, load_module_strict=not adapters, load_lr_scheduler_states=False
            )
        return loaded is not None

    def state(self) -> dict[str, Tensor]:
        """Collective. All weights on rank 0; empty elsewhere under ZeRO-3."""
        if self.zero_stage < 3:
            return dict(self._engine.module.state_dict())
        return self._engine._zero3_consolidated_16bit_state_dict() or {}  # of any number format, despite its name

    def close(self) -> None:
        """Let go of its memory: DeepSpeed's hooks are cycles that Python's collector cannot see."""
        self.scorer.kernels.remove()
        with quiet():
            self._engine.destroy()


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
    library = load_deepspeed(world)
    config = deepspeed_config(model, train, deepspeed, from_universal=from_universal)
    with sharded_loading(config, deepspeed.zero_stage):
        scorer = Scorer.load(model, world, recompute=train.gradient_checkpointing)
    _bound_buckets(config, scorer)
    optimizer = make_optimizer(scorer, train.optimizer)
    with quiet(logging.WARNING):  # it warns of every optimizer that it does not list
        engine, *_ = library.initialize(model=scorer, optimizer=optimizer, config=config, dist_init_required=False)
    guard = GradientGuard(engine, optimizer, train.optimizer.max_grad_norm)
    optimizer.register_step_pre_hook(guard)
    if isinstance(optimizer, Muon):
        from deepspeed.runtime.zero.muon.original_muon import zeropower_via_gram_newtonschulz

        optimizer.attach(flat_matrices(engine), zeropower_via_gram_newtonschulz, world.torch_device)
    engine.train()
    return Policy(engine, guard, padding)


def deepspeed_config(
    model: ModelSettings, train: TrainSettings, deepspeed: DeepSpeedSettings, *, from_universal: bool = False
) -> dict[str, Any]:
    half = model.dtype == "bfloat16"
    clips_itself = half or deepspeed.zero_stage > 0
    zero: dict[str, Any] = {
        "stage": deepspeed.zero_stage,
        **BUCKETS,
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    if deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,  # asked for, and of no effect: what accumulates is the caller's
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": train.optimizer.max_grad_norm if clips_itself else 0.0,  # written always: the default is 1
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
        # bfloat16 sums of many micro-steps lose small contributions
        **({"data_types": {"grad_accum_dtype": "fp32"}} if half and deepspeed.zero_stage else {}),
        **({"checkpoint": {"load_universal": True}} if from_universal else {}),
        "steps_per_print": None,
    }


def import_what_is_slow() -> None:
    """All that a first training imports and builds on a CPU, for a process that others are forked from."""
    with warnings.catch_warnings(), quiet(logging.WARNING):
        warnings.simplefilter("ignore")  # of libraries
        load_deepspeed(World())
        import pandas  # noqa: F401
        from deepspeed.checkpoint import ds_to_universal  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns for all models


def convert_shards(folder: Path, universal: Path) -> None:
    """Shards of any number of workers into a format that any other number can load, in `universal`."""
    from deepspeed.checkpoint.ds_to_universal import main

    settings = Namespace(
        input_folder=str(folder),
        output_folder=str(universal),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with quiet(logging.WARNING), Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # its bars
        main(settings)
    (universal.parent / "latest_universal").unlink(missing_ok=True)  # DeepSpeed's mark; ours says what counts


def whole_weights(folder: Path) -> dict[str, Tensor]:
    """What was trained under ZeRO-3, in float32, put together from the shards of all workers."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with quiet(logging.WARNING), Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # its bars
        weights: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(
            str(folder.parent), tag=folder.name, exclude_frozen_parameters=True
        )
    return weights


def load_deepspeed(world: World) -> Any:
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
    """DeepSpeed's optimizers import Muon, whose decorator brings torch's compiler: 2 s of CPU time."""
    from deepspeed.runtime import compiler

    compile_function = compiler.compile
    compiler.compile = lambda: compiler.dummy_decorator
    try:
        yield
    finally:
        compiler.compile = compile_function


@contextmanager
def sharded_loading(config: dict[str, Any], zero_stage: int) -> Iterator[None]:
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
    for name in BUCKETS:
        zero[name] = min(zero[name], max(sum(sizes), 1))
