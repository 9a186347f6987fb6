"""The answers section of a recipe: what a model writes, and who says how good it is."""

from __future__ import annotations

from pydantic import Field

from mixdpo_ray.recipe.evaluate import EvaluateSettings
from mixdpo_ray.recipe.iterate import IterateSettings
from mixdpo_ray.recipe.judge import JudgeSettings
from mixdpo_ray.recipe.rate import RateSettings
from mixdpo_ray.recipe.sample import SampleSettings
from mixdpo_ray.settings import Settings


class AnswersSettings(Settings):
    sample: SampleSettings = SampleSettings()
    rate: RateSettings = RateSettings()
    judge: JudgeSettings | None = Field(None, description="Who says which answer is better, and how good one is")
    evaluate: EvaluateSettings = EvaluateSettings()
    iterate: IterateSettings = IterateSettings()
