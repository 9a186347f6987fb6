"""The sample section of a recipe: answers of a model to prompts."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.decoding import DecodingSettings


class PromptsSettings(Settings):
    source: SourceSettings | None = Field(
        None, description="File, glob, folder, URI or data set of prompts; by default those of the recipe's own pairs"
    )
    split: Literal["train", "heldout"] = Field("train", description="Which prompts of the recipe's own pairs")
    skip: int = Field(0, ge=0, description="Leave out so many at the beginning, which another round has answered")
    most: int | None = Field(None, ge=1, description="At most so many prompts; all where none is given")


class HttpSettings(Settings):
    """A server that speaks OpenAI's protocol for chats: vLLM, SGLang, an API. What it draws, it draws by itself."""

    url: str = Field("http://127.0.0.1:8000/v1", description="Address of the server, up to the version")
    model: str | None = Field(None, description="What the server calls its model; sample.model where none is given")
    key_variable: str | None = Field(None, description="Name of the environment variable, on the node, with the key")
    key_file: str | None = Field(None, description="Name of the file, on the node, with the key")
    at_once: int = Field(16, ge=1, description="Most questions that wait for an answer at the same time")
    timeout_seconds: float = Field(600, gt=0, description="How long an answer may take")
    tries: int = Field(8, ge=1, description="How often a question is asked where the server is busy or fails")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s@?]+", url):
            raise ValueError("give an address such as http://HOST:8000/v1, and keys by name (key_variable, key_file)")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key_variable and self.key_file:
            raise ValueError("key_variable and key_file both name a key: keep one")
        return self


class SampleSettings(Settings):
    model: str | None = Field(
        None,
        description="outputs/runs/NAME, its checkpoints/step-K, a model's folder or Hub name; by default model.path",
    )
    revision: str | None = Field(None, description="Commit or tag of sample.model on the Hub")
    prompts: PromptsSettings = PromptsSettings()
    answers_each: int = Field(4, ge=1, description="Answers to each prompt; raised later, only the new ones are drawn")
    decoding: DecodingSettings = DecodingSettings()
    system_prompt: str | None = Field(None, description="Put before prompts that have no system turn of their own")
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Handed to the chat template, such as {enable_thinking: false}"
    )
    engine: Literal["hf", "http"] = Field("hf", description="hf: transformers, on this cluster; http: a server")
    http: HttpSettings = HttpSettings()
    batch_size: int = Field(16, ge=1, description="Answers written at once by each copy of the model (hf)")
    workers: int | None = Field(
        None, ge=1, description="Copies of the model (hf); cluster.reference_workers, or as many as training workers"
    )

    @model_validator(mode="after")
    def _revision_of_something(self) -> Self:
        if self.revision and not self.model:
            raise ValueError("revision is that of sample.model, which is not given: set model.revision")
        return self
