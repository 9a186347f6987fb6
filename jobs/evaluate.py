"""Judge what models answer: a run, its checkpoints or a comparison's arms, by a benchmark or by your own prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixdpo_ray.cluster.command import Report
    from mixdpo_ray.recipe.recipe import Recipe


def evaluate(recipe: Recipe, *, dry_run: bool = False) -> Report:
    from mixdpo_ray.evaluation.evaluate import evaluate as evaluate_models

    return evaluate_models(recipe, dry_run=dry_run)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_job

    flags = {"dry-run": "tell prompts, calls, tokens and price, and draw, ask and pay nothing"}
    run_job(__doc__, evaluate, connect=False, flags=flags, section="answers.evaluate")
