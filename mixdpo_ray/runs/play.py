"""The playground from its base model to the judgement of what was trained, as jobs/playground.py shows it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mixdpo_ray import storage
from mixdpo_ray.bar import say, waiting
from mixdpo_ray.cluster.command import before_ray
from mixdpo_ray.cluster.recipe_arguments import SettingsParser, recipe_of
from mixdpo_ray.cluster.run_record import RunRecord, run_folder
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.playground.verdict import describe_pairs, describe_verdict
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.plain_words import in_words
from mixdpo_ray.recipe.recipe import Recipe

if TYPE_CHECKING:
    from mixdpo_ray.playground.build import PlaygroundFolder


def play_parser(description: str | None, recipe: str) -> argparse.ArgumentParser:
    parser = SettingsParser(description)
    for name, field in PlaygroundSettings.model_fields.items():
        text = f"{field.description} (default: {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", default=field.default, metavar="NUMBER", help=text)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help=f"of {Path(recipe).name}")
    return parser


def play(path: str, overrides: Sequence[str], settings: dict[str, object]) -> None:
    """`path`: of the recipe, without model and data, which the settings make."""
    began = time.monotonic()
    recipe = recipe_of(path, overrides)
    chosen = playground_settings(settings)
    say("playground: loading libraries", meanwhile="playground: loading libraries")

    import torch

    from mixdpo_ray.playground.build import PlaygroundFolder
    from mixdpo_ray.runs.train import train

    torch.set_num_threads(1)  # on a busy machine two threads wait for each other; the model is too small for more
    if recipe.cluster.use_gpu is False:  # saving a model makes accelerate import the engine
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    playground = PlaygroundFolder(Path(recipe.output.storage_path) / "world", chosen)
    recipe = load_recipe(path, [f"model.path={playground.base}", f"data.source.path={playground.pairs}", *overrides])
    make(playground, recipe)
    _title("train")
    before_ray("train", recipe)
    print(train(recipe).describe())
    _title("judge")
    judge(playground, recipe)
    print(f"\n{time.monotonic() - began:.0f} s in all")


def playground_settings(values: dict[str, object]) -> PlaygroundSettings:
    try:
        return PlaygroundSettings.model_validate(values)
    except ValidationError as error:
        lines = (f"--{details['loc'][0]} {details['input']}: {in_words(details)}" for details in error.errors())
        raise RecipeError("\n".join(line.replace("_", "-") for line in lines)) from None


def make(playground: PlaygroundFolder, recipe: Recipe) -> None:
    _title("playground")
    if not playground.exists:
        storage.delete(run_folder(recipe))  # it was trained in another playground
        began = time.monotonic()
        with waiting("playground: training a base model and letting it answer"):
            playground.make()
        print(f"made a base model and pairs of its answers in {time.monotonic() - began:.0f} s")
    print(describe_pairs(playground.rated_pairs()))


def judge(playground: PlaygroundFolder, recipe: Recipe) -> None:
    from mixdpo_ray.playground.picture import draw_picture

    with waiting("judge: letting both models answer"):
        verdict = playground.judge(Path(RunRecord(run_folder(recipe)).model))
    print(describe_verdict(verdict))
    picture = Path(recipe.output.storage_path) / "playground.png"
    draw_picture(picture, verdict, playground.rated_pairs(), recipe.curriculum.threshold)
    print(f"  picture            {picture}")


def _title(text: str) -> None:
    print(f"\n--- {text}", flush=True)
