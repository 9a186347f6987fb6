"""Train a model on preference pairs from clear to ambiguous; what is not prepared yet is prepared first."""

from mixdpo_ray.cluster.command import run_job
from mixdpo_ray.recipe import Recipe


def main(recipe: Recipe) -> None:
    from mixdpo_ray.cluster.doctor.preflight import preflight
    from mixdpo_ray.cluster.run_folder import run_folder
    from mixdpo_ray.cluster.summary import describe
    from mixdpo_ray.cluster.train import train

    preflight(recipe)
    print(describe(run_folder(recipe), train(recipe)))


if __name__ == "__main__":
    run_job(__doc__ or "", main)
