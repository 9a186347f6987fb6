"""List what lies under a recipe's output.storage_path and who uses it; with --remove, delete what nothing uses."""

import sys

from mixdpo_ray.cluster.clean import describe, remove, survey
from mixdpo_ray.cluster.command import exit_status, recipe_of, recipe_parser


def main() -> None:
    parser = recipe_parser(__doc__ or "")
    parser.add_argument("--remove", action="store_true", help="delete what nothing uses; without it, only list")
    arguments = parser.parse_args()

    def job() -> None:
        items = survey(recipe_of(arguments).output.storage_path)
        print(describe(items))
        if arguments.remove:
            removed = remove(items)
            held = sum(item.unused for item in items) - len(removed)
            print(f"removed {len(removed)}" + (f"; {held} are locked by a running process" if held else ""))

    sys.exit(exit_status(job))


if __name__ == "__main__":
    main()
