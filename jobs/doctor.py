"""Look over a recipe, the cluster and what both need, in seconds and before GPUs are paid for. Nothing is left behind.

One line per check: green, yellow (worth a look) or red (and what to change). With --probe a few real steps are trained
to tell how long the job will take. Exit status: 0 nothing is red, 1 something is, 2 bad arguments or recipe.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def doctor(recipe: Recipe, *, probe: bool) -> Report:
    from mixdpo_ray.cluster.command import before_ray
    from mixdpo_ray.recipe.inputs import input_problems

    for problem in input_problems(recipe):  # at once; in their turn they are red, among all others
        print(problem, file=sys.stderr, flush=True)
    before_ray("doctor")

    from mixdpo_ray.doctor.run import examine_all

    return examine_all(recipe, probe=probe)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    run_job(__doc__, doctor, connect=False, flags={"probe": "train a few steps to estimate the time; takes a minute"})
