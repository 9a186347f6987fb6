"""What a playground is made of."""

from __future__ import annotations

from pydantic import Field

from mixdpo_ray.settings import Settings


class PlaygroundSettings(Settings):
    seed: int = Field(0, ge=0, description="Of everything that is drawn")
    base_steps: int = Field(600, ge=1, description="Steps of supervised fine-tuning that make the base model")
    base_batch: int = Field(32, ge=1, description="Demonstrations per step")
    prompts: int = Field(4000, ge=1, description="Prompts that the base model answers; nearly all give a pair")
    answers_each: int = Field(4, ge=2, description="Answers per prompt")
    spread: float = Field(0.4, gt=0, le=1, description="Rating points per point of true quality")
    noise: float = Field(0.8, ge=0, description="Standard deviation of an annotator's error, in rating points")
    judged: int = Field(1000, ge=2, description="Held-out prompts on which base and trained model are compared")
