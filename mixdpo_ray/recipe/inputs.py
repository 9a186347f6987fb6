"""What is wrong with a recipe's own files, told before Ray starts: half a second instead of half a minute.

The process that reads a recipe reads its data and its tokenizer too, so both must be here wherever Ray runs. Other
models are loaded by workers, as libraries of training are: what of them is not here is refused only where Ray will run
on this machine. Elsewhere the nodes are asked (cluster/preflight.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.difficulty.resolve import needed_metrics
from mixdpo_ray.errors import ModelError, RecipeError
from mixdpo_ray.pairs.curating import DS2
from mixdpo_ray.pairs.first_rows import wrong_at_first_sight
from mixdpo_ray.recipe.extras import extras_for_training, lacks
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tracking.settings import lacking_here
from mixdpo_ray.training.adapter_files import resolved
from mixdpo_ray.training.model_files import refuse_missing_folder
from mixdpo_ray.training.positions import too_long_for_model
from mixdpo_ray.training.schedule import absurd_rate
from mixdpo_ray.training.tokenizer import chat_template

_PLAYGROUND = "<playground>"  # stands for one in the recipe of a comparison
_OF_A_PLAYGROUND = ("world/base", "world/pairs.jsonl")  # the ends of paths in the recipe of the demo


def refuse_wrong_inputs(*recipes: Recipe, trains: bool = True) -> None:
    """Raise all that is wrong, a line each; what is merely doubtful is said."""
    problems = [problem for recipe in recipes for problem in input_problems(recipe, trains=trains)]
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))
    for doubt in dict.fromkeys(doubt for recipe in recipes for doubt in _doubts(recipe, trains)):
        say(f"warning: {doubt}")


def _doubts(recipe: Recipe, trains: bool) -> Iterator[str]:
    yield from _lengths(recipe, refused=False)
    if trains and (doubt := absurd_rate(recipe.train.optimizer, adapters=recipe.model.lora is not None)):
        yield doubt


def input_problems(recipe: Recipe, *, trains: bool = True) -> list[str]:
    """A line for each mistake in the paths, models and pairs that the recipe names, and each library that it lacks."""
    if absent := _of_absent_playground(recipe):
        return [absent]
    extras = [] if not trains or _ray_is_elsewhere() else extras_for_training(recipe)
    lacking = [extra.lacking() for extra in extras if lacks(extra.module)]
    if extras and not lacking and (unreachable := lacking_here(recipe.output.trackers)):
        lacking.append(unreachable)
    return [*lacking, *_models(recipe), *_adapter(recipe), *_lengths(recipe, refused=True), *_pairs(recipe)]


def _of_absent_playground(recipe: Recipe) -> str | None:
    paths = {"model.path": recipe.model.path, "data.source.path": str(recipe.data.source.path)}
    for setting, path in paths.items():
        if path.startswith(_PLAYGROUND):
            return f"{setting} {path} stands for the playgrounds that jobs/compare.py makes: only that can use it"
    absent = [f"{setting} {path}" for setting, path in paths.items() if _is_absent_playground(path)]
    if not absent:
        return None
    return f"{' and '.join(absent)}: nothing is there yet; first run make demo (jobs/playground.py), which makes it"


def _is_absent_playground(path: str) -> bool:
    return path.endswith(_OF_A_PLAYGROUND) and not Path(path).exists()


def _adapter(recipe: Recipe) -> Iterator[str]:
    """What a folder says of itself; a name on the Hub is asked when the model is loaded."""
    lora = recipe.model.lora
    if lora is not None and lora.adapter and (Path(lora.adapter).is_dir() or not storage.may_be_on_hub(lora.adapter)):
        try:
            resolved(lora)
        except ModelError as error:
            yield str(error)


def _models(recipe: Recipe) -> Iterator[str]:
    model = recipe.model
    named = [("model.path", model.path, model.tokenizer is None), ("model.tokenizer", model.tokenizer, True)]
    named.append(("model.reference", model.reference, False))
    for metric, settings in needed_metrics(recipe.metrics_used, recipe.metrics).items():
        named += [(f"metrics.{metric}.{one}", getattr(settings, one, None), False) for one in ("model", "against")]
    if isinstance(curate := recipe.data.curate, DS2):
        named.append(("data.curate.embedding.model", curate.embedding.model, False))
    for setting, name, read_here in named:
        if name is not None and (problem := _wrong_with_folder(setting, name, read_here=read_here)):
            yield problem
    if model.chat_template is not None:
        try:
            chat_template(model.chat_template)
        except ModelError as error:
            yield str(error)


def _wrong_with_folder(setting: str, name: str, *, read_here: bool) -> str | None:
    folder = Path(name)
    if folder.is_dir():
        if setting == "model.tokenizer" or any((folder / f"{kind}config.json").exists() for kind in ("", "adapter_")):
            return None
        inside = folder / "model"
        meant = f"did you mean {inside}?" if (inside / "config.json").exists() else "give the folder that holds it"
        return f"{setting} {name} has no config.json, so that it is no model: {meant}"
    if not read_here and _ray_is_elsewhere():
        return None
    try:
        refuse_missing_folder(setting, name)
    except ModelError as error:
        return str(error)
    return None


def _ray_is_elsewhere() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def _lengths(recipe: Recipe, *, refused: bool) -> list[str]:
    found = too_long_for_model(recipe.model, recipe.data.max_length, recipe.data.max_prompt_length)
    return [found.text] if found and found.ends_training == refused else []


def _pairs(recipe: Recipe) -> Iterator[str]:
    for setting, data in recipe.data.by_source.items():
        if problem := wrong_at_first_sight(data, setting):
            yield problem.replace("data.source", setting)
