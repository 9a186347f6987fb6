"""Train a model on preference pairs from clear to ambiguous; what is not prepared yet is prepared first."""

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.recipe.recipe import Recipe


def main(recipe: Recipe) -> None:
    from mixdpo_ray.cluster.preflight import preflight
    from mixdpo_ray.cluster.run_record import run_folder
    from mixdpo_ray.runs.summary import describe_run
    from mixdpo_ray.runs.train import train

    preflight(recipe)
    print(describe_run(run_folder(recipe), train(recipe)))


if __name__ == "__main__":
    run_job(__doc__ or "", main)
