"""The judge `http`: a server that speaks OpenAI's protocol, asked by one actor within its limits and its budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixdpo_ray.judging.reply_store import reply_folder
from mixdpo_ray.recipe.recipe import Recipe

if TYPE_CHECKING:
    from mixdpo_ray.judging.judge_actor import Judge


@contextmanager
def asked_over_http(recipe: Recipe) -> Iterator[Judge]:
    from mixdpo_ray.judging.judge_actor import judging

    asked = recipe.answers.judge
    settings = asked.http if asked else None
    assert settings is not None, "recipe/judge.py refuses the engine without its server"
    with judging(settings, reply_folder(recipe.output.storage_path, settings.model)) as judge:
        yield judge
