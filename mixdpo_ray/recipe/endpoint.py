"""Settings of a server that speaks OpenAI's protocol for chats, and how gently it is asked."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.settings import Settings

SET_BY_US = ("model", "messages", "n", "stream")
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")


class EndpointSettings(Settings):
    """vLLM, SGLang, or an API. A key is given by the name of what holds it, on the node that asks."""

    url: str = Field("http://127.0.0.1:8000/v1", description="Address of the server, up to the version")
    model: str | None = Field(None, description="What the server calls its model; by default answers.sample.model")
    key_variable: str | None = Field(None, description="Name of the environment variable, on the node, with the key")
    key_file: str | None = Field(None, description="Name of the file, on the node, with the key")
    at_once: int = Field(16, ge=1, description="Most questions that wait for an answer at the same time")
    requests_per_minute: int | None = Field(None, ge=1, description="Most requests in a minute, evenly spread")
    tokens_per_minute: int | None = Field(None, ge=1, description="Most tokens in a minute, of questions and answers")
    timeout_seconds: float = Field(600, gt=0, description="How long an answer may take")
    tries: int = Field(8, ge=1, description="How often a question is asked where the server is busy or fails")
    parameters: dict[str, Any] = Field(
        {}, description="Added to every request, such as {reasoning_effort: low}; null takes one of ours out"
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s@?#]+", url):
            raise ValueError("give an address such as http://HOST:8000/v1, and keys by name (key_variable, key_file)")
        return url.rstrip("/")

    @field_validator("parameters")
    @classmethod
    def _are_free(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in SET_BY_US if name in parameters]:
            raise ValueError(f"{', '.join(taken)} cannot be set here: each question decides it")
        limits = [parameters[name] for name in TOKEN_LIMITS if name in parameters]
        if limits and not any(isinstance(limit, int) and limit > 0 for limit in limits):
            raise ValueError("without a limit of tokens no answer has a longest price: give max_completion_tokens")
        return parameters

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        refuse_two_keys(self.key_variable, self.key_file)
        return self


def refuse_two_keys(variable: str | None, file: str | None) -> None:
    if variable and file:
        raise ValueError("key_variable and key_file both name a key: keep one")
