"""A whole run in a small world whose answers have a known quality: base model, rated pairs, MixDPO, judgement.

Everything after the pairs goes through the jobs and files of a real run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.run_folder import run_folder
from mixdpo_ray.cluster.summary import describe
from mixdpo_ray.cluster.train import train
from mixdpo_ray.playground.build import build_world, judge, quiet_libraries, read_pairs
from mixdpo_ray.playground.picture import draw_picture
from mixdpo_ray.playground.settings import WorldSettings
from mixdpo_ray.playground.verdict import describe_verdict
from mixdpo_ray.recipe import Recipe
from mixdpo_ray.recipe_file import load_recipe

RECIPE = Path(__file__).with_name("recipes") / "playground.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, field in WorldSettings.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=field.annotation, default=field.default, help=f"{field.description}"
        )
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="of jobs/recipes/playground.yaml")
    arguments = vars(parser.parse_args())
    overrides = arguments.pop("overrides")
    sys.exit(exit_status(lambda: play(WorldSettings(**arguments), overrides)))


def play(world: WorldSettings, overrides: list[str]) -> None:
    began = time.monotonic()
    recipe = load_recipe(str(RECIPE), overrides)
    folder = Path(recipe.output.storage_path) / "world"
    recipe = load_recipe(
        str(RECIPE), [f"model.path={folder / 'base'}", f"data.source.path={folder / 'pairs.jsonl'}", *overrides]
    )
    with quiet_libraries():
        facts, new = build_world(world, folder)
        print(
            f"world: {facts['pairs']} rated pairs, {facts['ties']:.0%} exact ties, "
            f"{facts['wrong']:.0%} labelled the wrong way round"
        )
        if new:  # a run on another world is another run
            recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"fresh": True})})
        with connected(recipe.cluster):
            summary = train(recipe)
        print(describe(run_folder(recipe), summary))
        show(world, recipe, folder)
    print(f"{time.monotonic() - began:.0f} s in all")


def show(world: WorldSettings, recipe: Recipe, folder: Path) -> None:
    """The judgement, in words and as a picture."""
    verdict = judge(world, folder / "base", Path(run_folder(recipe)) / "model")
    print(describe_verdict(verdict))
    picture = Path(recipe.output.storage_path) / "playground.png"
    draw_picture(picture, verdict, read_pairs(folder), recipe.curriculum.threshold.value or 0.5)
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
