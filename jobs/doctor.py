"""Look over a recipe, the cluster and what both need, in seconds and before GPUs are paid for. Nothing is left behind.

One line per check: green, yellow (worth a look) or red (and what to change). With --probe a few real steps are trained
to tell how long the job will take. Exit status: 0 nothing is red, 1 something is, 2 bad arguments or recipe.
"""

import sys
from pathlib import Path

from mixdpo_ray.cluster.command import exit_status, recipe_of, recipe_parser
from mixdpo_ray.recipe.recipe import Recipe


def main() -> None:
    parser = recipe_parser(__doc__ or "")
    parser.add_argument("--probe", action="store_true", help="train a few steps to estimate the time; takes a minute")
    arguments = parser.parse_args()
    sys.exit(exit_status(lambda: look_over(recipe_of(arguments), probe=arguments.probe)))


def look_over(recipe: Recipe, *, probe: bool) -> None:
    from mixdpo_ray.doctor.run import examine_all

    examine_all(recipe, Path.cwd(), probe=probe)


if __name__ == "__main__":
    main()
