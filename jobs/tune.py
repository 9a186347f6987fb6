"""Search for better settings: prepare once, train many trials, and leave a recipe, a table and a page of pictures."""

import shlex
import sys

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.cluster.tune import tune
from mixdpo_ray.recipe import Recipe


def main(recipe: Recipe) -> None:
    print(tune(recipe, shlex.join(["python", *sys.argv])).describe())


if __name__ == "__main__":
    run_job(__doc__ or "", main, connect=False)
