"""What every job does with its command line: RECIPE.yaml [dotted.key=value ...], and an exit status to trust.

0 done, 1 failed with a one-line reason, 2 bad arguments or recipe, 130 interrupted.

Ray, torch and what else takes seconds to import comes after the recipe was read, inside the jobs' own functions: help
and refusals are there at once.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mixdpo_ray import storage
from mixdpo_ray.errors import MixDPOError, RecipeError
from mixdpo_ray.recipe.file import describe_first_settings, describe_settings, load_recipe
from mixdpo_ray.recipe.recipe import Recipe


def run_job(description: str, action: Callable[[Recipe], None], *, connect: bool = True) -> None:
    """Read the recipe, connect to Ray (unless the action does so itself), act, and leave with the exit status."""
    arguments = recipe_parser(description).parse_args()

    def job() -> None:
        recipe = recipe_of(arguments)
        with _connected(recipe) if connect else nullcontext():
            action(recipe)

    sys.exit(exit_status(job))


def _connected(recipe: Recipe) -> AbstractContextManager[None]:
    from mixdpo_ray.cluster.connect import connected

    import_meanwhile("torch")
    return connected(recipe.cluster)


def import_meanwhile(module: str) -> None:
    """Import a module in a thread, while the caller waits for processes to start. Python waits for it at its exit."""
    threading.Thread(target=importlib.import_module, args=(module,)).start()


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: object, values: object, option: str | None = None) -> None:
        if values == "all":
            parser.epilog = "settings, their defaults and what they mean:\n\n" + describe_settings()
        else:
            more = "every other setting: --help all"
            parser.epilog = f"settings that one needs first ({more}):\n\n{describe_first_settings()}"
        parser.print_help()
        parser.exit()


def recipe_parser(description: str) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter, add_help=False)
    parser.add_argument("-h", "--help", nargs="?", choices=["all"], action=_Help, help="this, or with every setting")
    parser.add_argument("recipe", help="a YAML file such as jobs/recipes/playground.yaml")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="such as objective.beta=0.05")
    return parser


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    recipe = load_recipe(arguments.recipe, arguments.overrides)
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


def exit_status(job: Callable[[], None]) -> int:
    atexit.register(gc.freeze)  # else Python looks for cycles in all of torch before it ends: a second
    try:
        job()
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except MixDPOError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
