"""Whose answers are judged: models by their runs, checkpoints, folders or Hub names, and files of answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.run_record import RunRecord, arm_folder, run_folder
from mixdpo_ray.errors import RecipeError, StorageError
from mixdpo_ray.recipe.evaluate import TRAINED, UNTRAINED
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.model import model_before_run
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.wording import did_you_mean

BENCHMARK = "{benchmark}"  # stands for its name in the name of a file of answers
ANSWER_FILES = (".json", ".jsonl")


@dataclass(frozen=True)
class EvaluationArm:
    name: str
    model: str | None  # None: the recipe's own, with its tokenizer and its chat template

    def file(self, benchmark: str) -> str | None:
        """The file of its answers, where it is none of a model."""
        if self.model is None or not self.model.endswith(ANSWER_FILES):
            return None
        return self.model.replace(BENCHMARK, benchmark)

    def sampling(self, recipe: Recipe, decoding: DecodingSettings) -> Recipe:
        """The recipe that draws its answers."""
        sample = recipe.answers.sample
        own: dict[str, Any] = {"model": self.model, "revision": None, "answers_each": 1, "decoding": decoding}
        if self.model is not None:
            own["http"] = sample.http.model_copy(update={"model": self.model})
        answers = recipe.answers.model_copy(update={"sample": sample.model_copy(update=own)})
        return recipe.model_copy(update={"answers": answers})


def arms_of_evaluation(recipe: Recipe) -> tuple[EvaluationArm, ...]:
    asked = recipe.answers.evaluate
    if asked.comparison is not None:
        found = dict(_of_comparison(asked.comparison))
    else:
        found = asked.arms or {UNTRAINED: recipe.model.path, TRAINED: run_folder(recipe)}
    if asked.against is not None and asked.against not in found:
        known = did_you_mean(asked.against, found)
        raise RecipeError(f"answers.evaluate.against {asked.against!r} is no arm of {asked.comparison}; {known}")
    arms = [EvaluationArm(name, None if model == recipe.model.path else model) for name, model in found.items()]
    for arm in arms:
        if arm.name == TRAINED and not asked.arms and not storage.exists(str(arm.model)):
            raise RecipeError(f"{arm.model} is not there: run jobs/train.py first, or name answers.evaluate.arms")
    return tuple(arms)


def _of_comparison(folder: str) -> Iterator[tuple[str, str]]:
    """The kept models of its arms, one for each seed, and those that they began with."""
    recorded = RunRecord(folder).recorded()
    compare = recorded.recipe.get("compare", {}) if recorded else {}
    if not compare.get("arms"):
        raise RecipeError(f"answers.evaluate.comparison {folder} is no comparison: give a folder of jobs/compare.py")
    if not compare.get("keep_models"):
        raise StorageError(f"{folder} has kept no models: repeat jobs/compare.py with compare.keep_models=true")
    seeds = compare["seeds"]
    for seed in seeds:
        label = f", seed {seed}" if len(seeds) > 1 else ""
        runs = {name: storage.join(folder, arm_folder(name, seed)) for name in compare["arms"]}
        before = model_before_run(next(iter(runs.values()))) if compare.get("untrained") else None
        if before is not None:
            yield f"{compare['untrained']}{label}", before.path
        for name, run in runs.items():
            yield f"{name}{label}", run
