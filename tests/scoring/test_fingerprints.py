"""Numbers that earlier versions computed are found again: what names them is compared with what it was then.

A change here throws away what people have computed: that is right only where the numbers are others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.curriculum.halves import Half
from mixdpo_ray.difficulty.metric import AnswerLogps, HalfTraining, language_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring.cross_fit import CrossFit
from mixdpo_ray.scoring.metric_columns import metric_identities
from mixdpo_ray.scoring.metric_scores import metric_identity, scores_identity
from mixdpo_ray.scoring.reference import reference_folder
from mixdpo_ray.tables.prepared_table import PreparedTable, commit
from mixdpo_ray.training.model_files import with_absolute_paths
from mixdpo_ray.training.settings import LoraSettings
from tests.training.tiny import make_table

METRICS = (
    "metrics={perplexity: , ches: , implicit_margin: {reference_free: true}, length: {of: pair}, "
    "alignment_potential: {external: rating_margin, weight: 2.5}, dcrm: {reward: rating_margin, max_tokens: 9}, "
    "bees: {external: length, implicit: perplexity}, validation_loss: {seeds: 1, seed: 7, beta: 0.1}}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model by the names and bytes of its files, and a table of a tokenizer of which the name alone is known."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(bytes(range(256)))
    make_table(folder / "table")
    manifest = PreparedTable.open(str(folder / "table")).manifest
    commit(str(folder / "table"), manifest.model_copy(update={"facts": {"tokenizer": "0123456789abcdef"}}))
    return folder


def recipe(world: Path, *overrides: str) -> Recipe:
    file = world / "recipe.yaml"
    file.write_text(f"model: {{path: {world}/model}}\ndata: {{source: {{path: {world}/pairs.jsonl}}}}\n")
    return load_recipe(str(file), [f"output.storage_path={world}/out", METRICS, *overrides])


def table(world: Path) -> PreparedTable:
    return PreparedTable.open(str(world / "table"))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("perplexity", "c83bbd2a3a2d6500"),
        ("ches", "855e52d0c307bce5"),
        ("implicit_margin", "13e5fb436eb655ad"),
        ("length", "93ed1d7a274655d0"),
        ("alignment_potential", "1e7628c5d53b04f5"),
        ("dcrm", "f9238ba13cf7ffe9"),
        ("bees", "06e538c7a83294eb"),
        ("validation_loss", "00348757c5c80185"),
    ],
)
def test_what_a_metrics_values_depend_on_names_tables_that_are_ordered_by_it(
    world: Path, metric: str, expected: str
) -> None:
    assert fingerprint(metric_identity(recipe(world), metric)) == expected


@pytest.mark.parametrize(("metric", "expected"), [("ches", "4ac59d6607c76915"), ("dcrm", "07104588534f4b8d")])
def test_scores_lie_where_they_lay(world: Path, metric: str, expected: str) -> None:
    given = recipe(world)
    identity = scores_identity(given, table(world), metric, given.metrics[metric], with_absolute_paths(given.model))
    assert fingerprint(identity) == expected


def test_reference_log_probs_lie_where_they_lay(world: Path) -> None:
    assert Path(reference_folder(recipe(world), table(world))).name == "b6c54771bc4db1d2"


def test_trainings_on_halves_and_what_they_score_lie_where_they_lay(world: Path) -> None:
    given = recipe(world)
    training = HalfTraining(
        seeds=(7,), beta=0.1, learning_rate=3e-5, num_train_epochs=1, global_batch_size=None, lora=LoraSettings(rank=16)
    )
    start, nothing = language_model(with_absolute_paths(given.model), None), AnswerLogps(np.zeros(0), np.zeros(0))
    fit = CrossFit(given, table(world), "validation_loss", training, start, "", nothing)
    assert [fit.half_fit(Half(7, number)).name for number in (0, 1)] == ["c4349f14fd5db3bc", "8172866c6d1d3617"]


def test_columns_of_the_table_itself_add_nothing_to_its_name(world: Path) -> None:
    ordered = recipe(
        world,
        "curriculum={difficulty: prompt_length, threshold: {hard_count: 3}}",
        "data.select=[{keep: easiest, metric: score_chosen, fraction: 0.5}, "
        "{keep: values, metric: length, at_least: -9}, {keep: hardest, metric: rating_margin, count: 4}]",
    )
    assert metric_identities(ordered) == {
        "prompt_length": None,
        "score_chosen": None,
        "length": {"length": {"settings": {"of": "pair"}, "models": []}},
        "rating_margin": None,
    }
