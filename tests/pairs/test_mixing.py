"""Weights of a mix of sources: which pairs they keep, and what a recipe may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.pairs.mixing import beyond_weights, together
from mixdpo_ray.pairs.pair import content_hash
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.recipe.file import load_recipe


def keys(chat: int, code: int, heldout: int = 0) -> pa.Table:
    names = ["chat"] * chat + ["code"] * code + ["held"] * heldout
    numbers = [0] * chat + [1] * code + [2] * heldout
    ids = [content_hash([name, str(number)]) for number, name in enumerate(names)]
    return pa.table({"source_number": pa.array(numbers, pa.int8()), "source": names, "pair_id": ids})


def left_out(rows: pa.Table, **weights: float) -> set[str]:
    mixed = together(rows, 2)
    return set(mixed["pair_id"].take(beyond_weights(mixed, np.ones(len(rows), np.bool_), weights)).to_pylist())


def test_a_weight_keeps_its_share_of_one_source_to_the_nearest_pair() -> None:
    rows = keys(101, 40, heldout=10)
    ids = rows["pair_id"].to_pylist()
    away = left_out(rows, chat=0.5, code=1.0)
    assert len(away & set(ids[:101])) == len(away) == 101 - round(50.5)
    assert left_out(rows, chat=1.0, code=1.0) == set()


def test_which_pairs_are_kept_depends_neither_on_their_order_nor_on_other_sources() -> None:
    rows = keys(100, 40)
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    assert left_out(rows, chat=0.3, code=0.5) == left_out(shuffled, chat=0.3, code=0.5)
    assert left_out(rows, chat=0.3, code=1.0) == left_out(rows.slice(0, 120), chat=0.3, code=1.0)


def test_a_larger_weight_keeps_the_same_pairs_and_more() -> None:
    rows = keys(100, 40)
    assert left_out(rows, chat=0.7, code=1.0) < left_out(rows, chat=0.3, code=1.0)


def test_duplicates_have_no_share() -> None:
    rows = together(keys(100, 40), 2)
    first = np.ones(140, np.bool_)
    first[:60] = False
    assert len(beyond_weights(rows, first, {"chat": 0.5, "code": 1.0})) == 20


def test_sources_of_the_mix_are_one_source_and_others_follow_it() -> None:
    assert together(keys(1, 1, heldout=1), 2)["source_number"].to_pylist() == [0, 0, 1]


def test_each_source_has_its_own_columns_and_the_data_sections_policies() -> None:
    mix = {"chat": {"path": "a.jsonl", "weight": 0.5}, "code": {"path": "b.jsonl", "columns": {"chosen": "best"}}}
    data = DataSettings.model_validate({"source": {"mix": mix}, "heldout": {"source": {"path": "c.jsonl"}}})
    assert list(data.by_source) == ["data.source.mix.chat", "data.source.mix.code", "data.heldout.source"]
    assert data.by_source["data.source.mix.code"].source.columns == {"chosen": "best"}
    assert data.source.name == "a.jsonl, b.jsonl"


def test_a_recipe_without_a_mix_is_told_apart_as_ever() -> None:
    data = DataSettings.model_validate({"source": {"path": "a.jsonl"}})
    assert "mix" not in data.identity()["source"]
    mixed = DataSettings.model_validate({"source": {"mix": {"chat": {"path": "a.jsonl", "weight": 0.5}}}})
    assert mixed.identity()["source"]["mix"]["chat"]["weight"] == 0.5


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "data.source: path is missing: name files or a data set, or several sources under mix"),
        ({"path": "a", "mix": {"b": {"path": "b"}}}, "path belongs to one source, and mix names several"),
        ({"format": "plain", "mix": {"b": {"path": "b"}}}, "format belongs to one source, and mix names several"),
        ({"mix": {"b": {"path": "b", "weight": 2}}}, "data.source.mix.b.weight"),
        ({"mix": {"b": {}}}, "data.source.mix.b.path is missing"),
        ({"mix": {"b c": {"path": "b"}}}, "mix names a source 'b c': use letters, digits, '_' and '-'"),
    ],
)
def test_a_mix_that_says_too_much_or_too_little_is_refused(source: dict[str, Any], said: str, tmp_path: Path) -> None:
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"model": {"path": "m"}, "data": {"source": source}}))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "r.yaml"))
    assert said in str(caught.value)
