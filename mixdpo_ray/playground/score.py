"""How good a model is in its world, in two numbers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mixdpo_ray.playground.build import WorldFolder, answers_of, draw_all_prompts
from mixdpo_ray.playground.judge import Verdict


def score(world: WorldFolder, model: Path, answers_each: int) -> dict[str, float]:
    """Mean true quality of sampled answers to the held-out prompts, and the share of them that beat the base's."""
    before = _answers(world, world.base, answers_each)
    after = before if model == world.base else _answers.__wrapped__(world, model, answers_each)
    _, prompts = draw_all_prompts(world.settings)
    verdict = Verdict([prompt for prompt in prompts for _ in range(answers_each)], before, after)
    return {"quality": sum(verdict.quality_after) / len(after), "win_rate": verdict.win_rate}


@lru_cache(maxsize=1)  # every arm of a world is compared with the same base
def _answers(world: WorldFolder, model: Path, answers_each: int) -> list[str]:
    """All models draw with the same seed, so that they differ by what they say and less by luck."""
    _, prompts = draw_all_prompts(world.settings)
    given = answers_of(model, prompts, world.settings.seed + 1, answers_each)
    return [answer for answers in given for answer in answers]
