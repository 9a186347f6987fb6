"""A trial that also measures what its model is worth; in a file of its own, as workers import it by its name.

Both models answer with the same noise, as they do for the judge. Then luck hits both alike, and the share that the
better one wins lies further from a half than between answers that know nothing of each other, which is told beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean, stdev

from mixdpo_ray.comparison.judged_arms import both_judges
from mixdpo_ray.intervals import NORMAL
from mixdpo_ray.playground.build import ANSWER_TOKENS, PlaygroundFolder, draw_all_prompts
from mixdpo_ray.playground.prompts import quality
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.search.trial import Trial

ANSWERS_EACH = 4  # to every prompt
OTHER_NOISE = 99  # seed of the answers that decide nothing


class MeasuredTrial(Trial):
    """Also measures what its model is worth, while it is there."""

    def done_with_model(self, folder: str) -> Callable[[str], dict[str, float]] | None:
        recipe = self.shared.recipe
        playground = playground_at(Path(recipe.model.path).parent, recipe.train.seed)
        return both_judges(super().done_with_model(folder), partial(true_quality, playground))


def playground_at(folder: Path, seed: int) -> PlaygroundFolder:
    return PlaygroundFolder(folder, PlaygroundSettings(seed=seed, base_steps=600, prompts=4000, spread=1.0, noise=2.0))


def true_quality(playground: PlaygroundFolder, model: str) -> dict[str, float]:
    """Of answers to the prompts of the playground that no pair was made from."""
    before, after = true_qualities(playground, str(playground.base)), true_qualities(playground, model)
    other = [each[1:] + each[:1] for each in before]
    together, apart = [list(map(_share, after, base)) for base in (before, other)]
    means = [fmean(each) for each in after]
    return {
        "base_quality": fmean(map(fmean, before)),
        "quality": fmean(means),
        "quality_half": NORMAL * stdev(means) / math.sqrt(len(means)),
        "win_rate": fmean(together),
        "win_rate_half": NORMAL * stdev(together) / math.sqrt(len(together)),
        "independent_win_rate": fmean(apart),
    }


def _share(after: Sequence[float], before: Sequence[float]) -> float:
    return fmean((a > b) + (a == b) / 2 for a, b in zip(after, before, strict=True))


@lru_cache(maxsize=1)  # of the base, which every trial of a worker is compared with
def _of_base(playground: PlaygroundFolder, model: str) -> list[list[float]]:
    return _qualities(playground, model)


def true_qualities(playground: PlaygroundFolder, model: str) -> list[list[float]]:
    """Of each answer to each prompt."""
    return (_of_base if model == str(playground.base) else _qualities)(playground, model)


def _qualities(playground: PlaygroundFolder, model: str) -> list[list[float]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mixdpo_ray.training.decoding import DecodingSettings
    from mixdpo_ray.training.generation import chat_prompt_ids
    from mixdpo_ray.training.keyed_sampling import AskedRow, sample_in_batches

    _, prompts = draw_all_prompts(playground.settings)
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    ids = [chat_prompt_ids(tokenizer, [{"role": "user", "content": prompt.text}]) for prompt in prompts]
    asked = [
        AskedRow(prompt.text, draw, own)
        for prompt, own in zip(prompts, ids, strict=True)
        for draw in range(ANSWERS_EACH)
    ]
    decoding = DecodingSettings(max_new_tokens=ANSWER_TOKENS, seed=OTHER_NOISE)
    drawn = sample_in_batches(loaded, tokenizer, asked, decoding, batch_size=1024)
    texts = [answer.text for answer in drawn]
    by_prompt = [texts[first : first + ANSWERS_EACH] for first in range(0, len(texts), ANSWERS_EACH)]
    return [[quality(prompt, text) for text in own] for prompt, own in zip(prompts, by_prompt, strict=True)]
