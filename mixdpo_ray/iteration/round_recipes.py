"""The recipe of each step of a round: sampling and rating, training, and the answers that the round is judged by.

iterations/<name>/prompts.jsonl    those of all rounds, in their order; judged.jsonl beside it
iterations/<name>/round-1/         samples/ and rated/, prepared/ and reference/, runs/<name>/: what the jobs leave that
                                   could do a round by hand, in a storage of the round's own
iterations/<name>/judged/          answers of every round's model to the judged prompts
"""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.storage import join

RATED = "rated_answers"  # the format of what jobs/rate.py writes


def check_iteration(recipe: Recipe) -> None:
    """What can be known before Ray starts."""
    answers, source = recipe.answers, recipe.data.source
    if answers.sample.prompts.source is None:
        raise RecipeError("answers.sample.prompts.source is missing: name the prompts, each round answers others")
    if answers.sample.model is not None:
        raise RecipeError(
            f"answers.sample.model {answers.sample.model!r}: the first round is answered by model.path and each other "
            "one by the round's before it: leave it out"
        )
    if answers.sample.engine == "http":
        raise RecipeError("answers.sample.engine http: a server does not learn with the rounds; take hf")
    if answers.rate.pairs or answers.rate.source is not None:
        setting = "pairs" if answers.rate.pairs else "source"
        raise RecipeError(f"answers.rate.{setting}: rounds rate their own answers; leave it out")
    if not answers.rate.raters:
        raise RecipeError("answers.rate.raters names none: say who rates the answers; see jobs/rate.py --help")
    if answers.judge is None:
        raise RecipeError("answers.judge is missing: it says whether a round was any good; give {engine: ...}")
    if source.mix:
        raise RecipeError(
            "data.source.mix: rounds rate their own answers; name one path, instead of which they are read"
        )
    if source.format not in ("auto", RATED):
        raise RecipeError(f"data.source.format {source.format!r}: rounds rate their own answers; give {RATED}")
    if answers.iterate.rounds > 1 and not storage.is_local(recipe.output.storage_path):
        raise RecipeError(
            f"output.storage_path {recipe.output.storage_path!r}: a round trains the model that the last one left, "
            "which must lie in a folder: give one that all machines share"
        )
    if (lora := recipe.model.lora) is not None and (lora.adapter or lora.export == "adapter" or lora.quantize):
        setting = "adapter" if lora.adapter else "quantize" if lora.quantize else "export adapter"
        raise RecipeError(
            f"model.lora.{setting}: a round trains the whole model that the last one left; merge adapters first, and "
            "leave it out"
        )
    if recipe.train.max_steps is not None:
        raise RecipeError("train.max_steps would cut the curriculum of every round: thin it, with curriculum.thin")
    if recipe.model.lora is not None and answers.iterate.reference == "first" and answers.iterate.rounds > 1:
        raise RecipeError(
            "answers.iterate.reference first: adapters are held close to the model that they start from, which is "
            "the last round's; give last, or leave model.lora out"
        )


def iteration_folder(recipe: Recipe) -> str:
    return join(recipe.output.storage_path, "iterations", recipe.output.name)


def round_folder(recipe: Recipe, number: int) -> str:
    return join(iteration_folder(recipe), f"round-{number}")


def run_of_round(recipe: Recipe, number: int) -> str:
    return join(round_folder(recipe, number), "runs", recipe.output.name)


def round_prompts_file(recipe: Recipe) -> str:
    return join(iteration_folder(recipe), "prompts.jsonl")


def judged_prompts_file(recipe: Recipe) -> str:
    return join(iteration_folder(recipe), "judged.jsonl")


def sampling_recipe(recipe: Recipe, number: int) -> Recipe:
    """The answers of a round and their ratings, by the model that it begins with; each round has a seed of its own."""
    each = recipe.answers.iterate.prompts_each
    prompts = {**_prompts_in(recipe, round_prompts_file(recipe)), "skip": (number - 1) * each, "most": each}
    return with_settings(
        recipe,
        {
            **_model_after(recipe, number - 1),
            **_raters_that_follow(recipe, number),
            "answers.sample.prompts": prompts,
            "answers.sample.decoding.seed": recipe.answers.sample.decoding.seed + number - 1,
            "output.storage_path": round_folder(recipe, number),
            "output.fresh": False,
        },
    )


def judged_recipe(recipe: Recipe, number: int) -> Recipe:
    """One answer of a round's model to each judged prompt, by the same draws for all models; round 0 is the first."""
    return with_settings(
        recipe,
        {
            **_model_after(recipe, number),
            "answers.sample.prompts": _prompts_in(recipe, judged_prompts_file(recipe)),
            "answers.sample.answers_each": 1,
            "output.storage_path": join(iteration_folder(recipe), "judged"),
            "output.name": f"round-{number}",
            "output.fresh": False,
        },
    )


def training_recipe(recipe: Recipe, number: int, rated: str) -> Recipe:
    """Pairs of the round's own answers; the model continues from the round before.

    Where its checkpoints are judged, the prompts are those that no round trains on.
    """
    settings: dict[str, object] = {} if number == 1 else _continued(recipe, number)
    limit = recipe.data.source.max_quarantined_fraction
    source = {"path": rated, "format": RATED, "max_quarantined_fraction": limit}
    settings |= {"data.source": source, "output.fresh": False}
    if number < recipe.answers.iterate.rounds:
        settings["output.push_to_hub"] = None  # the last round's model is the one that is
    settings["answers.sample.prompts"] = _prompts_in(recipe, judged_prompts_file(recipe))
    return with_settings(recipe, {**settings, "output.storage_path": round_folder(recipe, number)})


def _prompts_in(recipe: Recipe, file: str) -> dict[str, object]:
    """The prompts of a file of ours, of which as many may be refused as of the source that they come from."""
    source = recipe.answers.sample.prompts.source
    limit = {} if source is None else {"max_quarantined_fraction": source.max_quarantined_fraction}
    return {"source": {"path": file, **limit}}


def model_before(recipe: Recipe, number: int) -> str:
    """The folder or name of the model that a round begins with."""
    return recipe.model.path if number == 1 else RunRecord(run_of_round(recipe, number - 1)).model


def _model_after(recipe: Recipe, number: int) -> dict[str, object]:
    return {"answers.sample.model": run_of_round(recipe, number)} if number else {}


def _continued(recipe: Recipe, number: int) -> dict[str, object]:
    """The last round's model, which brings its tokenizer; a commit is that of a reference on the Hub."""
    first = recipe.answers.iterate.reference == "first" and recipe.needs_reference
    model = recipe.model
    return {
        "model.path": model_before(recipe, number),
        "model.tokenizer": None,
        "model.reference": (model.reference or model.path) if first else None,
        "model.revision": model.revision if first else None,
    }


def _raters_that_follow(recipe: Recipe, number: int) -> dict[str, object]:
    """A rater that is the model which learns, as in self-annotation, is in each round the one that it begins with."""
    raters = recipe.answers.rate.raters.items()
    own = [name for name, rater in raters if getattr(rater, "model", None) == recipe.model.path]
    return {f"answers.rate.raters.{name}.model": model_before(recipe, number) for name in own}
