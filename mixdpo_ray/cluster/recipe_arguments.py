"""The command line of a job with a recipe, and what is refused of it at once."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from mixdpo_ray import storage
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.file import FIRST, describe_first_settings, describe_settings, load_recipe
from mixdpo_ray.recipe.recipe import Recipe

EXAMPLE = "jobs/recipes/playground.yaml"


class _Help(argparse.Action):
    def __init__(self, *, first: Sequence[str], section: str, **options: Any):
        super().__init__(**options)
        self.first, self.section = first, section

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: object, option: str | None = None) -> None:
        if values == "all":
            parser.epilog = "settings, their defaults and what they mean:\n\n" + describe_settings()
        else:
            more = "every other setting: --help all"
            which = (
                "settings that one needs first" if self.first is FIRST else "of the recipe it reads no more than this"
            )
            parser.epilog = f"{which} ({more}):\n\n{describe_first_settings(self.first, self.section)}"
        parser.print_help()
        parser.exit()


class SettingsParser(argparse.ArgumentParser):
    """A parser that says of what it does not understand how settings are written."""

    def __init__(self, description: str | None, *, add_help: bool = True):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, add_help=add_help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if "arguments are required: recipe" in message:
            message = f"give a recipe, such as: python jobs/{self.prog} {EXAMPLE}"
        else:
            words = message.removeprefix("unrecognized arguments: ").split()
            if words[0].startswith("--") and "." in words[0].partition("=")[0]:
                setting, _, value = words[0].lstrip("-").partition("=")
                message = f"{words[0]}: leave out the dashes: {setting}={value or 'VALUE'}"
        super().error(message)


def recipe_parser(
    description: str, flags: Mapping[str, str], settings: Sequence[str] = (), section: str = ""
) -> argparse.ArgumentParser:
    """`flags`: options that are on or off, and their help. `settings`: all that the job reads; else the first ones.

    `section`: of the recipe, whose settings are shown before those.
    """
    parser = SettingsParser(description, add_help=False)
    # the recipe may follow it, and is then taken for its value
    parser.add_argument(
        "-h",
        "--help",
        nargs="?",
        metavar="all",
        default=argparse.SUPPRESS,
        action=_Help,
        first=settings or FIRST,
        section=section,
        help="this, or with every setting",
    )
    parser.add_argument("recipe", help=f"a YAML file such as {EXAMPLE}")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="such as objective.beta=0.05")
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def recipe_of(path: str, overrides: Sequence[str]) -> Recipe:
    recipe = load_recipe(path, overrides)
    refuse_lost_output(recipe)
    return recipe


def refuse_lost_output(recipe: Recipe) -> None:
    """`ray job submit --working-dir` runs a job in a copy of the folder, which is deleted after it."""
    environment = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    path = recipe.output.storage_path
    if environment.get("working_dir") and storage.is_local(path) and not storage.local(path).is_absolute():
        raise RecipeError(
            f"output.storage_path {path!r} would lie in the job's working directory, which is deleted after it: give "
            "an absolute folder that all nodes share, or a URI such as s3://bucket/folder"
        )
