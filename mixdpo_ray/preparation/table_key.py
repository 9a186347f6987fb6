"""What a prepared table is asked to be, in one short name: found again without reading a single row of the sources."""

from __future__ import annotations

import json
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.curriculum.settings import RATING_MARGIN, CurriculumSettings
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.preparation.sources import Source, find_sources
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring.metric_columns import metric_identities

CODE_VERSION = 1  # raise it when the same request would now give another table
DERIVING_VERSION = 1  # the same for what is derived from a table
CURATING_VERSION = 1  # and for what is curated


def is_derived(recipe: Recipe) -> bool:
    """Whether the table is made from another one, without reading or tokenising a source again."""
    return bool(recipe.curriculum.difficulty != RATING_MARGIN or recipe.data.select or recipe.data.pair.flip)


def uncurated(recipe: Recipe) -> Recipe:
    """The recipe of the table that is curated, which is the one of all who do not curate."""
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"curate": None}), "curriculum": CurriculumSettings()}
    )


def base_recipe(recipe: Recipe) -> Recipe:
    """Whatever the metric, the selection, the flips and the order: they share one table of all pairs."""
    pair = recipe.data.pair.model_copy(update={"flip": 0.0})
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"select": (), "pair": pair}),
            "curriculum": CurriculumSettings(),
        }
    )


def trusted_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of the table of pairs that data.curate trusts, where it names some."""
    path = getattr(recipe.data.curate, "trusted", None)
    if path is None:
        return []
    elsewhere = {"path": path, "revision": None, "config": None, "data_dir": None, "mix": {}}
    source = recipe.data.source.model_copy(update=elsewhere)
    plain = uncurated(base_recipe(recipe))
    heldout = plain.data.heldout.model_copy(update={"source": None, "fraction": 0.0, "sets": {}})
    data = plain.data.model_copy(update={"source": source, "heldout": heldout, "sft": None})
    train = plain.train.model_copy(update={"global_batch_size": 1, "per_device_train_batch_size": 1})
    return [plain.model_copy(update={"data": data, "train": train})]


RECIPE = "recipe.json"


def write_recipe(folder: str, recipe: Recipe) -> None:
    """The recipe that a table was made for, for people: what found it again is the table's name."""
    storage.write_bytes(storage.join(folder, RECIPE), json.dumps(recipe.to_dict(), indent=2).encode())


def read_recipe(folder: str) -> dict[str, Any]:
    """Empty where a table has none."""
    path = storage.join(folder, RECIPE)
    content: dict[str, Any] = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
    return content


def table_name(recipe: Recipe, tokenizer: str, sources: list[Source]) -> str:
    """The name of the table that a recipe asks for, derived or not."""
    if not is_derived(recipe):
        return (
            _request(recipe, tokenizer, sources) if recipe.data.curate is None else _curated(recipe, tokenizer, sources)
        )
    return fingerprint(
        {
            "code": DERIVING_VERSION,
            "base": table_name(base_recipe(recipe), tokenizer, sources),
            "metrics": metric_identities(recipe),
            "select": recipe.to_dict()["data"]["select"],
            "flip": [recipe.data.pair.flip, recipe.data.pair.flip_seed if recipe.data.pair.flip else None],
            "order": recipe.curriculum.order_identity,
        }
    )


def _curated(recipe: Recipe, tokenizer: str, sources: list[Source]) -> str:
    from mixdpo_ray.curation.identity import curation_identity  # torch

    trusted = [_request(one, tokenizer, find_sources(one.data)) for one in trusted_recipes(recipe)]
    return fingerprint(
        {
            "code": CURATING_VERSION,
            "base": _request(uncurated(recipe), tokenizer, sources),
            "curate": curation_identity(recipe),
            **({"trusted": trusted} if trusted else {}),
            "order": recipe.curriculum.order_identity,
        }
    )


def _request(recipe: Recipe, tokenizer: str, sources: list[Source]) -> str:
    return fingerprint(
        {
            "code": CODE_VERSION,
            "sources": [source.identity for source in sources],
            "data": _rows_made_by(recipe.data),
            "tokenizer": tokenizer,
            "order": recipe.curriculum.order_identity,
        }
    )


def _rows_made_by(data: DataSettings) -> dict[str, Any]:
    """The settings that decide which pairs there are; those that were added later count where they are given."""
    pair = data.pair.model_dump(mode="json", exclude={"flip", "flip_seed"}, exclude_defaults=True)
    aside = ("max_quarantined_fraction", "select", "pair", "curate")
    given = {name: value for name, value in data.identity().items() if name not in aside}
    return {**given, "pair": pair} if pair else given
