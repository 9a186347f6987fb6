"""The iterate section of a recipe: rounds in which a model answers fresh prompts and learns from its own answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.settings import Settings


class IterateSettings(Settings):
    rounds: int = Field(3, ge=1, description="At most so many; raised later, the same command goes on")
    prompts_each: int = Field(
        1000, ge=1, description="Fresh prompts of each round, in the order of answers.sample.prompts"
    )
    reference: Literal["first", "last"] = Field(
        "first", description="What a round's training is held close to: the model before all rounds, or before this one"
    )
    judged: int = Field(200, ge=2, description="Prompts that no round answers for training, and each is judged by")
    judged_source: SourceSettings | None = Field(
        None, description="Where those come from; by default they are the first of answers.sample.prompts"
    )
