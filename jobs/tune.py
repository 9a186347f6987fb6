"""Search for better settings: prepare once, train many trials, and leave a recipe, a table and a page of pictures."""

import shlex
import sys

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.check import check_search


def main(recipe: Recipe) -> None:
    check_search(recipe)  # before anything that takes seconds to import

    from mixdpo_ray.search.tune import tune

    print(tune(recipe, shlex.join(["python", *sys.argv])).describe())


if __name__ == "__main__":
    run_job(__doc__ or "", main, connect=False)
