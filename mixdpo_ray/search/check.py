"""What can be known of a search without its data: types, empty ranges, unfair measures. It costs no heavy import."""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.measure import read_metrics, why_unfair
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sequence_parallel import not_divided
from mixdpo_ray.search.samplers import refuse_missing_extra
from mixdpo_ray.search.space import Space, starting_points
from mixdpo_ray.training.metric_names import JUDGE_METRICS


def check_search(recipe: Recipe) -> Space:
    space = Space.of(recipe)
    _check_storage(recipe)
    refuse_missing_extra(recipe.tune.sampler)
    for metric in read_metrics(recipe.tune.metric):
        if reason := why_unfair(metric, space.settings):
            raise RecipeError(f"tune.metric {metric.name}: {reason}; take eval_rewards/accuracies")
    judge = recipe.answers.judge
    if judge is not None and judge.engine == "hf" and any(name in JUDGE_METRICS for name in recipe.tune.named_metrics):
        raise RecipeError(
            "answers.judge.engine hf: trials hold the room that its model would need; serve it by itself (vLLM) and "
            "give engine http"
        )
    ranks, workers = recipe.deepspeed.sequence_parallel, recipe.tune.workers_per_trial
    if workers is not None and (reason := not_divided(ranks, "tune.workers_per_trial", workers)):
        raise RecipeError(reason)
    if recipe.train.max_steps is not None:
        raise RecipeError("train.max_steps would cut the curriculum of every trial: thin it, with curriculum.thin")
    if recipe.train.stop_after is not None:
        raise RecipeError(
            "train.stop_after is of one training: a study keeps what it has at any moment, so end its job by "
            "SIGINT (timeout -s INT 4h ...) and repeat the command"
        )
    if not recipe.data.holds_out:
        raise RecipeError("data.heldout holds out no pairs, and trials are compared on them: give it a fraction")
    starting_points(recipe, space)
    if recipe.tune.sampler == "grid":
        space.points()
    return space


def _check_storage(recipe: Recipe) -> None:
    if recipe.tune.storage is None and not storage.is_local(recipe.output.storage_path):
        raise RecipeError(
            f"tune.storage: Optuna's file needs a disk and output.storage_path is {recipe.output.storage_path}: give "
            "the SQLAlchemy URL of a database"
        )
