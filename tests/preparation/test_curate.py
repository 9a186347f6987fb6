"""Curated tables: of the same pairs with other ratings, orders or fewer of them, and what they were in columns."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.curation.report import CURATION, noise_rate
from mixdpo_ray.errors import DataError, RecipeError
from mixdpo_ray.objectives.label_noise import LabelNoise
from mixdpo_ray.playground.prompts import draw_prompts
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.preparation.prepare import describe_table, prepared_table
from mixdpo_ray.preparation.table_key import base_recipe, uncurated
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.tables.prepared_table import PREPARED_SCHEMA, PreparedTable
from mixdpo_ray.training.tokenizer import load_tokenizer

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

PAIRS, NOISE = 150, 0.15
LETTERS = ("abcde", "fghij", "klmno")  # of answers of the three classes, whose states lie apart
RATINGS = (2.0, 5.0, 8.0)
DS2 = "data.curate={method: ds2, edges: [3.5, 6.5], embedding: {text: answer}}"
ONE_ROUND = "data.curate={method: perpcorrect, rounds: 0, lora_rank: null, trusted_fraction: 0.2}"
Row = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    folder: Path
    rows: list[Row]  # as written: better rated answers first
    wrong: dict[str, bool]  # answer -> whether its rating was planted

    def recipe(self, *overrides: str) -> Recipe:
        return load_recipe(str(self.folder / "recipe.yaml"), overrides)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("curated")
    write_tiny_model(folder / "model")
    draw = random.Random(0)
    rows, wrong = [], {}
    for prompt in draw_prompts(draw, PAIRS):
        rated = []
        for label in draw.sample(range(3), 2):
            answer = " ".join(draw.choice(LETTERS[label]) for _ in range(8))
            wrong[answer] = draw.random() < NOISE
            seen = draw.choice([one for one in range(3) if one != label]) if wrong[answer] else label
            rated.append((RATINGS[seen], answer, {f"rater-{n}": RATINGS[seen] + draw.gauss(0, 2) for n in range(3)}))
        (high, better, some), (low, worse, others) = sorted(rated, key=lambda one: -one[0])
        rows.append(
            {"prompt": prompt.text, "chosen": better, "rejected": worse, "score_chosen": high, "score_rejected": low}
            | {"ratings_chosen": some, "ratings_rejected": others}
        )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 16, per_device_train_batch_size: 8}}
cluster: {{reference_workers: 1, num_workers: 1, use_gpu: false}}
output: {{storage_path: {folder}/out}}
"""
    )
    return Planted(folder, rows, wrong)


def rows_of(table: PreparedTable, split: str = "train") -> list[Row]:
    rows: list[Row] = table.read(split, np.arange(table.rows(split))).to_pylist()
    return rows


def tokens(row: Row) -> tuple[tuple[int, ...], ...]:
    """Prompt and both answers, whatever their order."""
    return (tuple(row["prompt_ids"]), *sorted((tuple(row["chosen_ids"]), tuple(row["rejected_ids"]))))


def test_ratings_that_neighbours_speak_against_are_replaced_and_what_they_were_is_kept(planted: Planted) -> None:
    base = prepared_table(planted.recipe())
    table = prepared_table(planted.recipe(DS2))
    facts, before = table.manifest.facts[CURATION], {tokens(row): row for row in rows_of(base)}
    assert facts["neighbours_agree"] > 0.6 > facts["by_chance"] + 0.2
    assert np.diag(facts["matrix"]).min() > 0.75
    assert facts["rated_wrong"] == pytest.approx(sum(planted.wrong.values()) / len(planted.wrong), abs=0.06)
    exchanged = 0
    for row in rows_of(table):
        old = before.pop(tokens(row))
        rated = (old["score_chosen"], old["score_rejected"])
        exchanged += row["exchanged"]
        assert row["exchanged"] == (row["chosen_ids"] != old["chosen_ids"])
        assert (row["pair_id"] == old["pair_id"]) != row["exchanged"], "another order is another pair"
        assert (row["rated_chosen"], row["rated_rejected"]) == (rated[::-1] if row["exchanged"] else rated)
        assert row["rated_margin"] == old["margin"]
        assert row["margin"] == pytest.approx(row["score_chosen"] - row["score_rejected"])
        assert row["margin"] >= 0
        for side in ("chosen", "rejected"):
            assert row[f"doubt_{side}"] > 0.5 or row[f"score_{side}"] == row[f"rated_{side}"]
    assert before == {}
    assert exchanged == facts["exchanged"] > 5
    margins = [row["margin"] for row in rows_of(table)]
    assert margins == sorted(margins, reverse=True) == table.index("train").margin.tolist()
    assert [row["pair_id"] for row in rows_of(table)] == list(table.index("train").pair_id)
    for row, old in zip(rows_of(table, "eval"), rows_of(base, "eval"), strict=True):
        assert all(row[name] == old[name] for name in PREPARED_SCHEMA.names), "held-out pairs stay as they were rated"
        assert not row["exchanged"]
    assert (Path(table.folder) / "curation.png").read_bytes()[:4] == b"\x89PNG"


def test_found_ratings_are_mostly_those_that_were_planted(planted: Planted) -> None:
    tokenizer = load_tokenizer(planted.recipe().model)
    hits = {True: [0, 0], False: [0, 0]}  # planted -> found, all
    for row in rows_of(prepared_table(planted.recipe(DS2))):
        for side in ("chosen", "rejected"):
            answer = tokenizer.decode(row[f"{side}_ids"], skip_special_tokens=True).strip()
            counts = hits[planted.wrong[answer]]
            counts[0] += row[f"doubt_{side}"] > 0.5
            counts[1] += 1
    assert hits[True][0] > 0.7 * hits[True][1], hits
    assert hits[False][0] < 0.1 * hits[False][1], hits


def test_pairs_with_a_wrong_rating_are_dropped_and_counted(planted: Planted) -> None:
    base = prepared_table(planted.recipe())
    table = prepared_table(planted.recipe(DS2, "data.curate.wrong=drop"))
    away = table.manifest.quarantined["curated_away"]
    assert table.rows("train") == base.rows("train") - away
    assert 10 < away < 70
    assert all(row["doubt_chosen"] <= 0.5 and row["doubt_rejected"] <= 0.5 for row in rows_of(table))


def test_who_does_not_curate_finds_the_table_of_before(planted: Planted) -> None:
    recipe = planted.recipe(DS2)
    assert uncurated(recipe) == planted.recipe()
    assert planted.recipe().data.identity().keys() >= {"max_row_bytes"}
    assert "curate" not in planted.recipe().data.identity()
    folders = {prepared_table(planted.recipe(*one)).folder for one in ((), (DS2,), (DS2, "data.curate.voters=5"))}
    assert len(folders) == 3


def test_a_curated_table_is_the_base_of_others(planted: Planted) -> None:
    recipe = planted.recipe(DS2, "data.select=[{keep: easiest, fraction: 0.5}]")
    assert base_recipe(recipe).data.curate == recipe.data.curate
    curated, table = prepared_table(planted.recipe(DS2)), prepared_table(recipe)
    half = round(curated.rows("train") / 2)
    assert [row["pair_id"] for row in rows_of(table)] == list(curated.index("train").pair_id)[:half]
    assert "rated_chosen" in rows_of(table)[0]
    assert noise_rate(table) == noise_rate(curated)


def test_the_report_says_what_was_found_and_the_objective_takes_the_noise(planted: Planted) -> None:
    recipe = planted.recipe(DS2, "objective.name=cdpo", "objective.label_smoothing=curated")
    table = prepared_table(recipe)
    text = describe_table(table, recipe)
    assert "curated by ds2" in text
    assert "how often a true class" in text
    assert "label_smoothing=curated" in text
    objective = job_in("", recipe, table, "").objective
    assert isinstance(objective, LabelNoise)
    assert objective.flipped == noise_rate(table) == table.manifest.facts[CURATION]["noise_rate"] > 0
    with pytest.raises(RecipeError, match=r"give data\.curate, or a share"):
        planted.recipe("objective.name=cdpo", "objective.label_smoothing=curated")


def test_pairs_that_raters_disagree_on_are_dropped_or_turned(planted: Planted) -> None:
    base = prepared_table(planted.recipe())
    said = {row["pair_id"]: np.array(row["rater_margins"]) for row in rows_of(base)}
    split = {name for name, margins in said.items() if (margins > 0).any() and (margins < 0).any()}
    table = prepared_table(planted.recipe("data.curate={method: agreement}"))
    assert {row["pair_id"] for row in rows_of(table)} == said.keys() - split
    assert 5 < len(split) == table.manifest.quarantined["curated_away"]
    assert all("rater_margins" not in row and row["disagreement"] >= 0 for row in rows_of(table))
    turned = prepared_table(planted.recipe("data.curate={method: agreement, wrong: flip}"))
    against = {name for name, margins in said.items() if np.sign(margins).sum() < 0}
    assert turned.rows("train") == base.rows("train")
    assert sum(row["exchanged"] for row in rows_of(turned)) == len(against)


def test_one_rater_is_too_few_to_disagree(planted: Planted, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    bare = [{name: value for name, value in row.items() if "ratings" not in name} for row in planted.rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in bare))
    with pytest.raises(DataError, match=r"the source has ratings of none: give answers\.rate\.raters two or more"):
        prepared_table(planted.recipe(f"data.source.path={path}", "data.curate={method: agreement}"))


def test_a_surrogate_finds_orders_and_is_trained_once(planted: Planted) -> None:
    base = prepared_table(planted.recipe())
    table = prepared_table(planted.recipe(ONE_ROUND))
    facts = table.manifest.facts[CURATION]
    assert (facts["method"], facts["best"], facts["trusted"]) == ("perpcorrect", 0, round(0.2 * base.rows("train")))
    assert table.rows("train") == base.rows("train")
    for row in rows_of(table):
        assert row["exchanged"] == (row["flip_probability"] >= 0.5)
    scores = planted.folder / "out" / "scores"
    found = {path for path in scores.glob("*/manifest.json") if "perpcorrect" in path.read_text()}
    assert len(found) == 1
    assert not (found.copy().pop().parent / "training" / "model").exists()
    dropped = prepared_table(planted.recipe(ONE_ROUND, "data.curate.wrong=drop"))
    assert dropped.rows("train") == base.rows("train") - facts["found"]
    assert found == {path for path in scores.glob("*/manifest.json") if "perpcorrect" in path.read_text()}
