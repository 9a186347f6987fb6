"""Settings of a push to the Hugging Face Hub."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.recipe.endpoint import refuse_two_keys
from mixdpo_ray.settings import Settings

_NAME = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"


class PushSettings(Settings):
    """The repo that a model is pushed to; `me/my-model` alone stands for {repo: me/my-model}."""

    repo: str = Field(description="Its name on the Hub, such as me/my-model; made where there is none")
    private: bool = Field(True, description="Whether a repo that is made for it is private")
    revision: str | None = Field(None, description="Branch, made where there is none; by default main")
    key_variable: str | None = Field(
        None, description="Name of the environment variable, on the driver, with the token; by default HF_TOKEN"
    )
    key_file: str | None = Field(
        None, description="Name of the file, on the driver, with the token; by default that of `hf auth login`"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"repo": value} if isinstance(value, str) else value

    @field_validator("repo")
    @classmethod
    def _is_a_name(cls, repo: str) -> str:
        if not re.fullmatch(f"({_NAME}/)?{_NAME}", repo) or "--" in repo or ".." in repo:
            raise ValueError("give its name on the Hub, such as me/my-model: letters, digits, '.', '_' and single '-'")
        return repo

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        refuse_two_keys(self.key_variable, self.key_file)
        return self
