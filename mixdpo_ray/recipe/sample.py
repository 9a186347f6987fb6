"""The sample section of a recipe: answers of a model to prompts."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.recipe.endpoint import EndpointSettings
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.decoding import DecodingSettings

TAKEN = {  # vLLM's names of what has a setting of its own
    "model": "answers.sample.model",
    "tokenizer": "model.tokenizer",
    "revision": "answers.sample.revision",
    "dtype": "model.dtype",
    "trust_remote_code": "model.trust_remote_code",
    "tensor_parallel_size": "answers.sample.vllm.gpus_each",
    "gpu_memory_utilization": "answers.sample.vllm.memory",
    "enable_prefix_caching": "answers to one prompt share its prefix, always",
    "seed": "answers.sample.decoding.seed",
    "task_type": "answers are generated",
}


class PromptsSettings(Settings):
    source: SourceSettings | None = Field(
        None, description="File, glob, folder, URI or data set of prompts; by default those of the recipe's own pairs"
    )
    split: Literal["train", "heldout"] = Field("train", description="Which prompts of the recipe's own pairs")
    skip: int = Field(0, ge=0, description="Leave out so many at the beginning, which another round has answered")
    most: int | None = Field(None, ge=1, description="At most so many prompts; all where none is given")


class VllmSettings(Settings):
    """How copies of the model run in vLLM (needs the extra `vllm`)."""

    gpus_each: int = Field(1, ge=1, description="GPUs that each copy of the model is spread over")
    memory: float = Field(0.9, gt=0, le=1, description="Share of a GPU's memory for weights and cache")
    options: dict[str, Any] = Field(
        {}, description="Added to vLLM's engine arguments, such as {max_model_len: 8192}; part of what decides answers"
    )

    @field_validator("options")
    @classmethod
    def _settings_of_ours_stay_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, where in TAKEN.items():
            if name in options:
                raise ValueError(f"options.{name} is set elsewhere: {where}")
        return options


class SampleSettings(Settings):
    model: str | None = Field(
        None,
        description="outputs/runs/NAME, its checkpoints/step-K, a model's folder or Hub name; by default model.path",
    )
    revision: str | None = Field(None, description="Commit or tag of answers.sample.model on the Hub")
    prompts: PromptsSettings = PromptsSettings()
    answers_each: int = Field(4, ge=1, description="Answers to each prompt; raised later, only the new ones are drawn")
    decoding: DecodingSettings = DecodingSettings()
    system_prompt: str | None = Field(None, description="Put before prompts that have no system turn of their own")
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Handed to the chat template, such as {enable_thinking: false}"
    )
    engine: Literal["hf", "http", "vllm"] = Field(
        "hf", description="hf: transformers, on this cluster; http: a server; vllm: vLLM, on this cluster's GPUs"
    )
    http: EndpointSettings = EndpointSettings()
    vllm: VllmSettings = VllmSettings()
    batch_size: int = Field(16, ge=1, description="Answers written at once by each copy of the model (hf)")
    workers: int | None = Field(
        None,
        ge=1,
        description="Copies of the model (hf, vllm); cluster.reference_workers, or as many as training workers",
    )

    @model_validator(mode="after")
    def _revision_of_something(self) -> Self:
        if self.revision and not self.model:
            raise ValueError("revision is that of answers.sample.model, which is not given: set model.revision")
        return self
