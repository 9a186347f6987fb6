"""The model, train and deepspeed sections of a recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.metric_names import WIN_RATE, unknown_metric
from mixdpo_ray.wording import seconds_of

Dtype = Literal["bfloat16", "float32"]
Packing = bool | Literal["auto"]  # YAML reads on and off as true and false
OptimizerName = Literal["adamw", "adamw_8bit", "muon"]
Kernels = Literal["none", "liger"]
Duration = Annotated[float, BeforeValidator(lambda value: seconds_of(value) if isinstance(value, str) else value)]
_OF_MUON = ("muon_learning_rate", "muon_momentum")  # settings of train.optimizer
MOVE_NO_STEP = ("evaluation", "checkpoints", "max_steps", "stop_after")  # settings of train
# Elements that are reduced or gathered at once; the memory of a bucket is taken whole (memory_estimate.py)
BUCKETS = {"reduce_bucket_size": 200_000_000, "allgather_bucket_size": 200_000_000}


class LoraSettings(Settings):
    """Low-rank adapters (needs the extra `lora`). New ones start at zero: the base model is then the reference."""

    rank: int = Field(16, ge=1, description="Rank of the adapters")
    alpha: float = Field(32.0, gt=0, description="Scale of the adapters; the update is multiplied by alpha / rank")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="Layers that get an adapter")
    adapter: str | None = Field(
        None, description="Start from this peft adapter, a folder or Hub name, whose own configuration holds"
    )
    reference: Literal["base", "adapter"] | None = Field(
        None, description="Where `adapter` is given: compare with the base model, or with that adapter on it"
    )
    export: Literal["merged", "adapter", "both"] = Field(
        "merged", description="What a run leaves: model/ with adapters merged into it, adapter/ as peft loads it, both"
    )
    rslora: bool = Field(False, description="Multiply by alpha / sqrt(rank) instead")
    dora: bool = Field(False, description="Train the length of each output's weights apart from their direction")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of what enters adapters, while the policy trains")
    modules_to_save: tuple[str, ...] = Field((), description="Modules that are trained whole, e.g. [lm_head]")
    quantize: bool = Field(
        False, description="Keep the base in 4 bits, nf4 twice quantised (needs the extra `bitsandbytes`; ZeRO up to 2)"
    )

    @property
    def given(self) -> set[str]:
        """Settings that a recipe names, which an adapter's own configuration may not contradict."""
        return set(self.model_fields_set)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.model_dump().items()

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Earlier versions knew three settings; of an adapter's own configuration only what the recipe names."""
        content: dict[str, Any] = handler(self)
        known = set() if self.adapter else {"rank", "alpha", "target_modules"}
        fields = type(self).model_fields
        return {
            name: value
            for name, value in content.items()
            if name in known or getattr(self, name) != fields[name].default or (self.adapter and name in self.given)
        }

    @model_validator(mode="after")
    def _reference_is_chosen(self) -> Self:
        if self.adapter and self.reference is None:
            raise ValueError(
                f"reference: adapter {self.adapter!r} is trained further; say base or adapter, which it is compared "
                "with"
            )
        if self.reference and not self.adapter:
            raise ValueError(f"reference {self.reference} is of an adapter that is given: name it, or leave this out")
        return self


class ModelSettings(Settings):
    path: str = Field(description="Hugging Face name or folder of the model that is trained")
    revision: str | None = Field(None, description="Commit or tag on the Hub")
    tokenizer: str | None = Field(None, description="Another tokenizer than the model's own")
    dtype: Dtype = Field("bfloat16", description="Number format of weights and activations")
    attn_implementation: str = Field("sdpa", description="transformers' attention: sdpa, eager, flash_attention_2")
    packing: Packing = Field(
        "auto", description="Pairs in rows without padding, a prompt run once for both answers; auto: where models can"
    )
    kernels: Kernels = Field(
        "none", description="liger: on GPUs, Liger's norms, rotary positions and MLPs (needs the extra `liger`)"
    )
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings along")
    chat_template: str | None = Field(None, description="Jinja template, or a file of one, instead of the tokenizer's")
    lora: LoraSettings | None = Field(None, description="Train low-rank adapters instead of all weights")
    reference: str | None = Field(None, description="Another reference model than the starting policy")
    reference_tolerance: float = Field(
        0.02, gt=0, description="Largest allowed gap per token between stored and live reference log-probs at the start"
    )

    def identity(self) -> dict[str, Any]:
        """What tells one training from another. What is off is left out, since earlier versions had nothing else."""
        off = {name for name, value in (("packing", False), ("kernels", "none")) if getattr(self, name) == value}
        content = self.model_dump(mode="json", exclude=off)
        if self.lora is not None:
            content["lora"].pop("export", None)  # of what was trained
        return content

    def logps_identity(self) -> dict[str, Any]:
        """What log-probs depend on beyond weights and tokens; packing and kernels move their last bits only."""
        aside = {"path", "tokenizer", "chat_template", "packing", "kernels"}
        content = self.model_dump(mode="json", exclude=aside)
        if self.lora is not None:
            off = ("adapter", "reference", "export", "dropout")
            content["lora"] = {name: value for name, value in content["lora"].items() if name not in off}
        return content

    @model_validator(mode="after")
    def _lora_is_its_own_reference(self) -> Self:
        if self.lora and self.reference:
            raise ValueError("lora uses its base model as the reference: leave model.reference out")
        return self


class OptimizerSettings(Settings):
    name: OptimizerName = Field(
        "adamw",
        description="adamw_8bit: moments in 8 bits (needs the extra `bitsandbytes`); muon: momentum made "
        "orthogonal for the matrices inside the model, AdamW for the rest",
    )
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate; the paper uses 2e-7 to 1e-6 at 7-8B")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW, decoupled from the gradient")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the gradient's running mean")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the squared gradient's running mean")
    adam_epsilon: float = Field(1e-8, gt=0, description="Keeps the division by the squared mean finite")
    muon_learning_rate: float | None = Field(
        None, gt=0, description="Peak rate of muon's matrices, whose steps are as large as AdamW's; by default the same"
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Decay of muon's momentum")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are scaled down to this norm; 0 leaves them alone")

    def identity(self) -> dict[str, Any]:
        """What tells one optimizer from another. Earlier versions had AdamW alone."""
        mine = {"adamw": {"name", *_OF_MUON}, "adamw_8bit": set(_OF_MUON), "muon": set()}
        return self.model_dump(mode="json", exclude=mine[self.name])

    @model_validator(mode="after")
    def _muon_reads_its_own(self) -> Self:
        given = [name for name in _OF_MUON if getattr(self, name) != type(self).model_fields[name].default]
        if self.name != "muon" and given:
            raise ValueError(f"{given[0]} would never be read by {self.name}: leave it out, or set name to muon")
        return self


class ScheduleSettings(Settings):
    kind: Literal["per_stage", "single"] = Field(
        "per_stage", description="A warm-up and decay for each stage, or one over the whole run"
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field("cosine", description="Decay after the warm-up")
    warmup_steps: float = Field(0.1, ge=0, description="Steps of warm-up; below 1 a share of the stage")
    stage2_lr_ratio: float = Field(
        1.0, gt=0, description="Peak rate of the stage that comes second, as a share of the first one's"
    )
    reset_optimizer: bool | None = Field(
        None, description="Forget the optimizer's moments where a stage begins; by default yes when per_stage"
    )

    @property
    def resets_optimizer(self) -> bool:
        return self.kind == "per_stage" if self.reset_optimizer is None else self.reset_optimizer


class CheckpointJudgeSettings(Settings):
    """Checkpoints are judged by answers.judge beside the training, which waits for none of it; the last one always."""

    every_steps: int = Field(ge=1, description="Judge what the model writes after every so many steps; saves them")
    prompts: int = Field(64, ge=2, description="Held-out prompts, or the first of answers.sample.prompts.source")
    metrics: tuple[Literal["judge/win_rate", "judge/quality"], ...] = Field(
        (WIN_RATE,),
        min_length=1,
        description="What is measured: the win rate takes two questions an answer, quality one",
    )


class EvaluationSettings(Settings):
    """The held-out split is always evaluated before the first step and after the last one."""

    every_steps: int | None = Field(None, ge=1, description="Evaluate also after every so many steps")
    per_device_eval_batch_size: int | None = Field(
        None, ge=1, description="Pairs per forward pass; the training's where not given"
    )
    judge: CheckpointJudgeSettings | None = Field(None, description="Have what checkpoints write judged")


class CheckpointSettings(Settings):
    """The last step is always saved."""

    every_steps: int | None = Field(100, ge=1, description="Save after every so many steps")
    keep_last: int = Field(2, ge=1, description="Keep this many of the newest")
    keep_best: str | None = Field(
        None, description="Keep the best one by this metric too, e.g. eval_rewards/accuracies; evaluates at each save"
    )

    @field_validator("keep_best")
    @classmethod
    def _known_metric(cls, name: str | None) -> str | None:
        if name is not None and (problem := unknown_metric(name)):
            raise ValueError(problem)
        return name


class TrainSettings(Settings):
    global_batch_size: int = Field(128, ge=1, description="Pairs per optimizer step, over all workers")
    per_device_train_batch_size: Annotated[int, Field(ge=1)] | TokenBudget = Field(
        2, description="Pairs per forward pass of one worker; or {tokens: 8192}, where rows are packed"
    )
    num_train_epochs: int = Field(1, ge=1, description="How often each pair is trained; see curriculum.epoch_order")
    max_steps: int | None = Field(None, ge=1, description="Stop after this step; schedules stay those of the whole run")
    stop_after: Duration | None = Field(
        None, gt=0, description="Time that a job may take, such as 4h or 90m: it saves, and the same command continues"
    )
    seed: int = Field(42, ge=0, description="Of the random generators")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about 30 % more time")
    logp_chunk_tokens: int = Field(
        4096, ge=1, description="Completion tokens whose full-vocabulary logits exist at the same time"
    )
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()

    def identity(self, aside: Collection[str] = MOVE_NO_STEP) -> dict[str, Any]:
        """What tells one training from another, with `max_grad_norm` where it once stood, and without `aside`."""
        optimizer = self.optimizer.identity()
        content = self.model_dump(mode="json", exclude={*aside, "optimizer"})
        return {**content, "max_grad_norm": optimizer.pop("max_grad_norm"), "optimizer": optimizer}

    @property
    def needs_held_out(self) -> str | None:
        """The setting that asks for more than the first and the last evaluation, which nobody misses without pairs."""
        if self.checkpoints.keep_best is not None:
            return "train.checkpoints.keep_best"
        return None if self.evaluation.every_steps is None else "train.evaluation.every_steps"


class DeepSpeedSettings(Settings):
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="What is sharded: nothing, optimizer, gradients, weights")
    sequence_parallel: int = Field(
        1, ge=1, description="Workers that run each row together, a slice each: for pairs too long for one device"
    )
    offload_optimizer: bool = Field(False, description="Keep optimizer state in the host's memory (stages 1 to 3)")
    offload_parameters: bool = Field(False, description="Keep weights in the host's memory (stage 3)")

    @model_validator(mode="after")
    def _offload_needs_sharding(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters needs zero_stage 3, not {self.zero_stage}")
        return self
