"""Look over a recipe, the cluster and what both need, in seconds and before GPUs are paid for. Nothing is left behind.

One line per check: green, yellow (worth a look) or red (and what to change). With --probe a few real steps are trained
to tell how long the job will take. Exit status: 0 nothing is red, 1 something is, 2 bad arguments or recipe.
"""

import argparse
import sys
from pathlib import Path

from mixdpo_ray.cluster.command import exit_status
from mixdpo_ray.cluster.doctor.consultation import consult
from mixdpo_ray.recipe_file import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a YAML file such as jobs/recipes/playground.yaml")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="such as cluster.num_workers=8")
    parser.add_argument("--probe", action="store_true", help="train a few steps to estimate the time; takes a minute")
    arguments = parser.parse_args()

    def job() -> None:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        consult(recipe, Path.cwd(), probe=arguments.probe)

    sys.exit(exit_status(job))


if __name__ == "__main__":
    main()
