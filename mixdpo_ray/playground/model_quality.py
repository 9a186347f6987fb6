"""How good a model is in its playground, in two numbers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mixdpo_ray.playground.build import PlaygroundFolder, answers_of, draw_all_prompts
from mixdpo_ray.playground.judge import Verdict


def model_quality(playground: PlaygroundFolder, model: Path, answers_each: int) -> dict[str, float]:
    """Mean true quality of sampled answers to the held-out prompts, and the share of them that beat the base's."""
    before = _answers(playground, playground.base, answers_each)
    after = before if model == playground.base else _answers.__wrapped__(playground, model, answers_each)
    _, prompts = draw_all_prompts(playground.settings)
    verdict = Verdict([prompt for prompt in prompts for _ in range(answers_each)], before, after)
    return {"quality": sum(verdict.quality_after) / len(after), "win_rate": verdict.win_rate}


@lru_cache(maxsize=1)  # every arm of a playground is compared with the same base
def _answers(playground: PlaygroundFolder, model: Path, answers_each: int) -> list[str]:
    """All models draw with the same seed, so that they differ by what they say and less by luck."""
    _, prompts = draw_all_prompts(playground.settings)
    given = answers_of(model, prompts, playground.settings.seed + 1, answers_each)
    return [answer for answers in given for answer in answers]
