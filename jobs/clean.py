"""List what lies under a recipe's output.storage_path and who uses it; with --remove, delete what nothing uses."""

import sys

from mixdpo_ray.cluster.command import exit_status, recipe_of, recipe_parser
from mixdpo_ray.recipe.recipe import Recipe


def main() -> None:
    parser = recipe_parser(__doc__ or "")
    parser.add_argument("--remove", action="store_true", help="delete what nothing uses; without it, only list")
    arguments = parser.parse_args()
    sys.exit(exit_status(lambda: clean(recipe_of(arguments), really=arguments.remove)))


def clean(recipe: Recipe, *, really: bool) -> None:
    from mixdpo_ray.runs.clean import describe_items, remove, survey_storage

    items = survey_storage(recipe.output.storage_path)
    print(describe_items(items))
    if really:
        removed = remove(items)
        held = sum(item.unused for item in items) - len(removed)
        print(f"removed {len(removed)}" + (f"; {held} are locked by a running process" if held else ""))


if __name__ == "__main__":
    main()
