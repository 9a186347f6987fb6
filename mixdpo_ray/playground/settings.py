"""What the small world is made of."""

from __future__ import annotations

from pydantic import Field

from mixdpo_ray.settings import Settings


class WorldSettings(Settings):
    seed: int = Field(0, ge=0, description="Of everything that is drawn")
    base_steps: int = Field(900, ge=1, description="Steps of supervised fine-tuning that make the base model")
    base_batch: int = Field(96, ge=1, description="Demonstrations per step")
    prompts: int = Field(5600, ge=1, description="Prompts that the base model answers; most of them give a pair")
    answers_each: int = Field(3, ge=2, description="Answers per prompt")
    noise: float = Field(2.0, ge=0, description="Standard deviation of the annotator's error, in rating points")
    whole_points: float = Field(0.9, ge=0, le=1, description="How often the annotator gives whole points")
    judged: int = Field(1000, ge=2, description="Held-out prompts on which models are compared")
