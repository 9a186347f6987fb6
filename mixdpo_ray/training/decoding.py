"""How tokens are drawn. Light: a recipe has these settings, and is read without torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from mixdpo_ray.settings import Settings

StopText = Annotated[str, Field(min_length=1)]


class DecodingSettings(Settings):
    temperature: float = Field(1.0, ge=0, description="Logits are divided by it; 0 takes the likeliest token each time")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the likeliest tokens that together have this probability; 1: from all"
    )
    max_new_tokens: int = Field(512, ge=1, description="Longest answer, in tokens; a longer one is cut there")
    min_new_tokens: int = Field(1, ge=0, description="No answer ends before so many tokens")
    stop: tuple[StopText, ...] = Field((), description="Texts that end an answer, and are no part of it")
    seed: int = Field(0, ge=0, description="Of the noise; with it and the prompt the n-th answer is always the same")

    @model_validator(mode="after")
    def _shortest_before_longest(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} exceeds max_new_tokens {self.max_new_tokens}")
        return self
