"""Turn raw preference pairs into a checked, tokenised table in curriculum order, once for every run and search."""

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.recipe.recipe import Recipe


def main(recipe: Recipe) -> None:
    from mixdpo_ray.cluster.preflight import preflight
    from mixdpo_ray.preparation.prepare import prepare

    preflight(recipe, trains=recipe.trains_for(recipe.metrics_used))
    table = prepare(recipe, describe_again=True)
    print(f"prepared table: {table.folder}")


if __name__ == "__main__":
    run_job(__doc__ or "", main)
