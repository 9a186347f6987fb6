"""The prompts of all rounds, each answered in one of them, and those that every round's model is judged by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.errors import DataError
from mixdpo_ray.iteration.round_recipes import iteration_folder, judged_prompts_file, round_prompts_file
from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import AskedPrompt, prompts_of_source
from mixdpo_ray.search.space import with_settings

JUDGED_SOURCE = "answers.iterate.judged_source"


@dataclass(frozen=True)
class RoundPrompts:
    rounds: Sequence[AskedPrompt]
    judged: Sequence[AskedPrompt]

    def write(self, recipe: Recipe) -> None:
        """Leave them where the rounds' recipes say they are."""
        for path, prompts in ((round_prompts_file(recipe), self.rounds), (judged_prompts_file(recipe), self.judged)):
            lines = (
                json.dumps({"prompt": prompt.messages, **prompt.template.columns}, ensure_ascii=False) + "\n"
                for prompt in prompts
            )
            storage.write_bytes(path, "".join(lines).encode())


def take_prompts(recipe: Recipe) -> RoundPrompts:
    """Those of the recipe's sources; too few for its rounds are refused. Read without Ray."""
    asked, source = recipe.answers.iterate, recipe.answers.sample.prompts.source
    assert source is not None, "round_recipes.py refuses a recipe without them"
    here = with_settings(recipe, {"output.storage_path": iteration_folder(recipe)})  # for what is refused
    found = prompts_of_source(here, source)
    if asked.judged_source is None:
        judged, rest = found[: asked.judged], found[asked.judged :]
    else:
        judged = _judged(here, asked.judged_source)
        ids = {prompt.prompt_id for prompt in judged}
        rest = [prompt for prompt in found if prompt.prompt_id not in ids]
        if len(rest) < len(found):
            say(f"iterate: {len(found) - len(rest)} prompts are among the judged ones, and no round answers them")
    wanted = asked.rounds * asked.prompts_each
    if len(rest) < wanted or len(judged) < 2:
        kept = f", {len(judged)} of them to judge by" if asked.judged_source is None else ""
        raise DataError(
            f"answers.sample.prompts has {len(found)} prompts{kept}, and {asked.rounds} rounds of "
            f"{asked.prompts_each} need {wanted}: lower answers.iterate.rounds or prompts_each, or name more prompts"
        )
    return RoundPrompts(rest[:wanted], judged)


def _judged(recipe: Recipe, source: SourceSettings) -> list[AskedPrompt]:
    asked = {"answers.sample.prompts.skip": 0, "answers.sample.prompts.most": recipe.answers.iterate.judged}
    return prompts_of_source(with_settings(recipe, asked), source, JUDGED_SOURCE)
