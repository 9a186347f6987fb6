"""A table by another metric, of selected or flipped pairs, is what sorting and picking the base's rows would give."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray import storage
from mixdpo_ray.curriculum.order import seeded_hashes
from mixdpo_ray.errors import DataError, PreparedTableError, TooFewPairsError
from mixdpo_ray.pairs.flips import flipped, flipped_id
from mixdpo_ray.preparation.convert_sources import SIZES, Sizes
from mixdpo_ray.preparation.derive import NOT_SELECTED
from mixdpo_ray.preparation.prepare import SAMPLES, prepared_table
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.tables.prepared_table import PreparedTable, commit
from mixdpo_ray.tables.reference_table import ReferenceTable
from tests.preparation.preparations import ON_THE_CLUSTER, quarantined, recipe, save_tokenizer, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

SHORT_FIRST: dict[str, Any] = {"difficulty": "chosen_length", "threshold": {"hard_fraction": 0.25}}
EASIEST_HALF = [{"keep": "easiest", "fraction": 0.5}]
TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")


def rows_of(table: PreparedTable, split: str = "train") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.read(split, np.arange(table.rows(split))).to_pylist()
    return rows


def test_the_recipe_for_pairs_without_ratings_prepares_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in some_rows(100)]
    source, tokenizer = write_jsonl(tmp_path / "pairs.jsonl", rows), save_tokenizer(tmp_path / "model")
    changes = [f"model.path={tokenizer}", f"data.source.path={source}", f"output.storage_path={tmp_path}"]
    shipped = str(Path(__file__).parents[2] / "jobs" / "recipes" / "unrated-pairs.yaml")
    table = prepared_table(load_recipe(shipped, changes))
    lengths = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows_of(table)]
    assert (len(lengths), lengths) == (95, sorted(lengths))
    told = capsys.readouterr().out
    assert "of those kept: no score, margin 0" in told
    assert told.count("rows in") == 1, "one table, of the pairs as they are trained"
    assert not any(line.split() == ["margin", "pairs"] for line in told.splitlines()), "all of them have margin 0"
    assert [line.split()[0] for line in told.splitlines() if "this recipe's" in line] == ["hard_fraction=0.3"]
    assert "warning" not in told
    plain = [*changes, "curriculum.mode=sorted_dpo", "curriculum.order=shuffled", "curriculum.difficulty=rating_margin"]
    assert prepared_table(load_recipe(shipped, plain)).rows("train") == 95


def without_position(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "position"} for row in rows]


def naive(rows: list[dict[str, Any]], key: Any) -> list[dict[str, Any]]:
    """By a loop over the base's rows; ties by the hash of the pair's id."""
    hashes = {row["pair_id"]: int(seeded_hashes([row["pair_id"]], 42)[0]) for row in rows}
    return sorted(rows, key=lambda row: (key(row), hashes[row["pair_id"]]))


@pytest.fixture
def source(tmp_path: Path) -> str:
    rows = some_rows(150)
    for number, row in enumerate(rows):
        row["chosen"] += " honey" * (number * 7 % 5)
    return write_jsonl(tmp_path / "a.jsonl", [*rows, rows[0], {**rows[1], "rejected": " "}])


def asked(tmp_path: Path, source: str, **settings: Any) -> Recipe:
    return recipe(tmp_path, source, heldout={"fraction": 0.1}, **settings)


@pytest.mark.parametrize("sizes", [SIZES, ON_THE_CLUSTER], ids=["here", "on the cluster"])
def test_another_metric_moves_the_rows_and_keeps_the_held_out_ones(tmp_path: Path, source: str, sizes: Sizes) -> None:
    base = prepared_table(asked(tmp_path, source), sizes)
    table = prepared_table(asked(tmp_path, source, curriculum=SHORT_FIRST), sizes)
    expected = naive(rows_of(base), lambda row: len(row["chosen_ids"]))
    found = rows_of(table)
    assert [row["position"] for row in found] == list(range(len(found)))
    assert [row.pop("difficulty") for row in found] == [-len(row["chosen_ids"]) for row in expected]
    assert without_position(found) == without_position(expected)
    assert table.index("train").pair_id == [row["pair_id"] for row in expected]
    assert table.index("train").margin.tolist() == [row["margin"] for row in expected]
    assert table.index("train").difficulty.tolist() == [-len(row["chosen_ids"]) for row in expected]
    held = rows_of(table, "eval")
    assert [row.pop("difficulty") for row in held] == [-len(row["chosen_ids"]) for row in held]
    assert held == rows_of(base, "eval")
    assert table.manifest.content_digest != base.manifest.content_digest
    assert len(table.parts("train")) == len(base.parts("train"))
    assert (len(table.parts("train")) > 1) == (sizes is ON_THE_CLUSTER)


def test_a_computed_metric_orders_and_selects_and_its_settings_name_the_table(tmp_path: Path, source: str) -> None:
    def asking(of: str) -> Recipe:
        content = asked(tmp_path, source, curriculum={**SHORT_FIRST, "difficulty": "length"}).to_dict()
        content["data"]["select"] = [{"keep": "hardest", "metric": "length", "fraction": 0.5}]
        return Recipe.model_validate({**content, "metrics": {"length": {"of": of}}})

    base, table = prepared_table(asked(tmp_path, source)), prepared_table(asking("pair"))

    def tokens(row: dict[str, Any]) -> int:
        return sum(len(row[name]) for name in TOKENS)

    expected = naive(rows_of(base), tokens)[-round(0.5 * base.rows("train")) :]
    assert table.index("train").pair_id == [row["pair_id"] for row in expected]
    assert table.index("train").difficulty.tolist() == [-tokens(row) for row in expected]
    assert table.folder != prepared_table(asking("answers")).folder
    assert table.manifest.facts["metrics"]["length"]["length"]["settings"] == {"of": "pair"}


def test_the_hard_pairs_are_the_hardest_by_the_metric(tmp_path: Path, source: str) -> None:
    asking = asked(tmp_path, source, curriculum=SHORT_FIRST)
    table = prepared_table(asking)
    hard = job_in("", asking, table, "").hard(table)
    lengths = table.index("train").chosen_length
    assert hard.sum() == round(0.25 * len(lengths))
    assert lengths[~hard].max() <= lengths[hard].min()


def test_a_selection_keeps_its_rows_in_order_and_accounts_for_the_others(tmp_path: Path, source: str) -> None:
    base = prepared_table(asked(tmp_path, source))
    rules = [
        {"keep": "values", "metric": "chosen_length", "at_most": 10},
        {"keep": "hardest", "metric": "rating_margin", "fraction": 0.5},
    ]
    table = prepared_table(asked(tmp_path, source, select=rules))
    short = [row for row in rows_of(base) if len(row["chosen_ids"]) <= 10]
    expected = short[len(short) - round(0.5 * len(short)) :]  # the base lies in the order of the margin
    assert without_position(rows_of(table)) == without_position(expected)
    assert rows_of(table, "eval") == rows_of(base, "eval")
    assert table.index("train").metric is None
    left_out = base.rows("train") - len(expected)
    manifest = table.manifest
    assert manifest.quarantined == {"duplicate_pair": 1, "empty_answer": 1, "not_selected": left_out}
    assert manifest.rows_in == 152 == manifest.rows_kept + sum(manifest.quarantined.values())
    assert manifest.facts["select"] == [
        {"at_least": None, **rules[0], "left": len(short)},
        {"count": None, "seed": 42, **rules[1], "left": len(expected)},
    ]
    assert quarantined(table.folder) == quarantined(base.folder)
    others = pq.read_table(storage.join(table.folder, NOT_SELECTED)).to_pylist()
    assert len(others) == left_out
    by_id = {row["pair_id"]: row for row in rows_of(base)}
    for other in others:
        row = by_id[other["pair_id"]]
        assert row["position"] == other["position"]
        assert other["rule"] == (0 if len(row["chosen_ids"]) > 10 else 1)


def test_what_was_tokenised_once_is_never_tokenised_again(tmp_path: Path, source: str) -> None:
    """The source keeps its size and its time but no row of it could be read any more, and the table knows no more."""
    base = prepared_table(asked(tmp_path, source))
    facts = {name: fact for name, fact in base.manifest.facts.items() if name != SAMPLES}
    commit(base.folder, base.manifest.model_copy(update={"facts": facts}))
    state = Path(source).stat()
    Path(source).write_bytes(b"?" * state.st_size)
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    by_length = prepared_table(asked(tmp_path, source, curriculum=SHORT_FIRST))
    half = prepared_table(asked(tmp_path, source, select=EASIEST_HALF, pair={"flip": 0.2}))
    assert sorted(by_length.index("train").pair_id) == sorted(base.index("train").pair_id)
    assert half.rows("train") == round(0.5 * base.rows("train"))
    for table in (by_length, half):
        assert table.manifest.facts["base"] == base.manifest.fingerprint
    assert len(list((tmp_path / "outputs" / "prepared").iterdir())) == 6  # three tables, and a lock for each


def test_a_derived_table_is_found_again_without_its_base(tmp_path: Path, source: str) -> None:
    asking = asked(tmp_path, source, curriculum=SHORT_FIRST)
    made = prepared_table(asking)
    storage.delete(prepared_table(asked(tmp_path, source)).folder)
    assert prepared_table(asking).folder == made.folder
    assert prepared_table(asked(tmp_path, source, curriculum={**SHORT_FIRST, "threshold": {"value": -5}})) == made
    others: list[dict[str, Any]] = [
        {"curriculum": {**SHORT_FIRST, "order": "ascending"}},
        {"curriculum": SHORT_FIRST, "select": EASIEST_HALF},
        {"curriculum": SHORT_FIRST, "pair": {"flip": 0.1}},
    ]
    assert len({made.folder, *(prepared_table(asked(tmp_path, source, **other)).folder for other in others)}) == 4


def test_flipped_pairs_are_the_mirror_images_of_the_bases_and_lie_where_they_lay(tmp_path: Path, source: str) -> None:
    base = prepared_table(asked(tmp_path, source))
    for sizes, seed in ((SIZES, 1), (ON_THE_CLUSTER, 2)):
        table = prepared_table(asked(tmp_path, source, pair={"flip": 0.3, "flip_seed": seed}), sizes)
        before, after = rows_of(base), rows_of(table)
        flips = flipped([row["pair_id"] for row in before], 0.3, seed).tolist()
        assert 20 < sum(flips) < 70
        assert table.manifest.notes == {"flipped": sum(flips)}
        for old, new, flip in zip(before, after, flips, strict=True):
            sides = ("rejected", "chosen") if flip else ("chosen", "rejected")
            assert [new["chosen_ids"], new["rejected_ids"]] == [old[f"{side}_ids"] for side in sides]
            assert [new["score_chosen"], new["score_rejected"]] == [old[f"score_{side}"] for side in sides]
            assert new["pair_id"] == (flipped_id(old["pair_id"]) if flip else old["pair_id"])
            assert (new["flipped"], new["margin"], new["prompt_ids"]) == (flip, old["margin"], old["prompt_ids"])
        index = table.index("train")
        assert index.pair_id == [row["pair_id"] for row in after]
        assert index.chosen_length.tolist() == [len(row["chosen_ids"]) for row in after]
        assert index.rejected_length.tolist() == [len(row["rejected_ids"]) for row in after]
        assert without_position(rows_of(table, "eval")) == [
            {**row, "flipped": False} for row in without_position(rows_of(base, "eval"))
        ]


def test_references_of_flipped_pairs_are_asked_for_and_never_taken_from_the_unflipped_ones(
    tmp_path: Path, source: str
) -> None:
    base = prepared_table(asked(tmp_path, source))
    noisy = prepared_table(asked(tmp_path, source, pair={"flip": 0.3}))
    store = ReferenceTable.create(str(tmp_path / "reference"), "f")
    ids = base.index("train").pair_id
    store.append(
        pa.table({"pair_id": list(ids), "ref_chosen_logp": np.zeros(len(ids)), "ref_rejected_logp": np.ones(len(ids))})
    )
    flips = np.asarray(noisy.column("train", "flipped"))
    assert store.missing(noisy.index("train").pair_id) == [
        pair_id for pair_id, flip in zip(noisy.index("train").pair_id, flips, strict=True) if flip
    ]
    assert np.isnan(store.aligned(noisy.index("train").pair_id)[0]).tolist() == flips.tolist()


def test_a_selection_of_less_than_a_batch_is_refused_with_its_counts(tmp_path: Path, source: str) -> None:
    rules = [{"keep": "easiest", "fraction": 0.5}, {"keep": "hardest", "count": 3}]
    with pytest.raises(TooFewPairsError, match=r"leaves 3 of 135 pairs \(easiest left 68, hardest left 3\), fewer"):
        prepared_table(asked(tmp_path, source, select=rules))
    with pytest.raises(DataError, match="easiest asks for 500 pairs, and 135 are there"):
        prepared_table(asked(tmp_path, source, select=[{"keep": "easiest", "count": 500}]))


def test_a_metric_without_a_value_for_every_pair_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"honey {n}", "chosen": f"wax {n}", "rejected": "car", "margin": n / 2} for n in range(20)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    by_score = {"difficulty": "score_chosen", "threshold": {"hard_fraction": 0.1}}
    with pytest.raises(
        DataError, match=r"curriculum.difficulty score_chosen: 18 of the 18 pairs of train have no value"
    ):
        prepared_table(asked(tmp_path, source, curriculum=by_score))


def test_what_fails_in_the_middle_leaves_no_table_and_no_half_of_one(tmp_path: Path, source: str) -> None:
    """A part of the base is damaged; once it is whole again, the same command works."""
    base = prepared_table(asked(tmp_path, source), ON_THE_CLUSTER)
    part = Path(base.parts("train")[-1].path)
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    asking = asked(tmp_path, source, curriculum=SHORT_FIRST)
    with pytest.raises(PreparedTableError, match="missing or damaged"):
        prepared_table(asking, ON_THE_CLUSTER)
    prepared = tmp_path / "outputs" / "prepared"
    assert [path.name for path in prepared.iterdir() if path.is_dir()] == [Path(base.folder).name]
    part.write_bytes(content)
    table = prepared_table(asking, ON_THE_CLUSTER)
    assert table.rows("train") == base.rows("train")


def test_what_a_killed_process_left_is_no_table_and_is_swept(tmp_path: Path, source: str) -> None:
    asking = asked(tmp_path, source, curriculum=SHORT_FIRST)
    made = prepared_table(asking)
    digest, half = made.manifest.content_digest, Path(made.folder)
    (half / "manifest.json").unlink()
    (half / "train" / "index.parquet").unlink()
    beside = half.with_name(f".unfinished-{half.name}")
    beside.mkdir()
    (beside / "junk").touch()
    again = prepared_table(asking)
    assert (again.folder, again.manifest.content_digest) == (made.folder, digest)
    assert not beside.exists()
    assert len(again.index("train")) == again.rows("train")


def test_a_persons_look_at_the_table_shows_the_metric(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = prepared_table(asked(tmp_path, source, curriculum=SHORT_FIRST, select=EASIEST_HALF))
    said = capsys.readouterr()
    assert "refused: not_selected" in said.out
    assert "chosen_length  pairs" in said.out
    assert "without tokenising" in said.err
    assert (Path(table.folder) / "margins.png").stat().st_size > 1000
    assert json.loads((Path(table.folder) / "recipe.json").read_text())["curriculum"]["difficulty"] == "chosen_length"
