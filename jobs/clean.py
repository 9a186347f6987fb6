"""List what lies under a recipe's output.storage_path and who uses it; with --remove, delete what nothing uses."""

import argparse
import sys

from mixdpo_ray.cluster.clean import describe, remove, survey
from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.recipe_file import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="a YAML file such as jobs/recipes/playground.yaml")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="such as output.storage_path=outputs")
    parser.add_argument("--remove", action="store_true", help="delete what nothing uses; without it, only list")
    arguments = parser.parse_args()

    def job() -> None:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        items = survey(recipe.output.storage_path)
        print(describe(items))
        if arguments.remove:
            removed = remove(items)
            held = sum(item.unused for item in items) - len(removed)
            print(f"removed {len(removed)}" + (f"; {held} are locked by a running process" if held else ""))

    sys.exit(exit_status(job))


if __name__ == "__main__":
    main()
