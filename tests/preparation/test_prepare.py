"""What a prepared table holds depends on what the pairs say, never on how they were stored or who worked on them."""

from __future__ import annotations

import math
import random
from pathlib import Path

import datasets
import numpy as np
import pytest

from mixdpo_ray.curriculum.order import easiest_first
from mixdpo_ray.errors import DataError, FormatError, TooFewPairsError
from mixdpo_ray.preparation.convert_sources import SIZES
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.tables.prepared_table import PreparedTable
from tests.preparation.preparations import (
    ON_THE_CLUSTER,
    Row,
    quarantined,
    recipe,
    some_rows,
    within,
    write_jsonl,
    write_parquet,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def index_bytes(table: PreparedTable) -> tuple[bytes, bytes]:
    train, evaluation = (Path(table.folder) / split / "index.parquet" for split in ("train", "eval"))
    return train.read_bytes(), evaluation.read_bytes()


def in_five_files(folder: Path, rows: list[Row]) -> str:
    """In another order, in both kinds of files, found by a glob of folders."""
    shuffled = random.Random(1).sample(rows, len(rows))
    for number in range(5):
        part = folder / f"part{number}"
        part.mkdir(parents=True)
        some = shuffled[number::5]
        if number % 2:
            write_parquet(part / "rows.parquet", some, row_group_size=7)
        else:
            write_jsonl(part / "rows.jsonl", some)
    return str(folder / "part*" / "rows.*")


def test_one_file_here_and_five_shuffled_files_on_the_cluster_give_the_same_table(tmp_path: Path) -> None:
    rows = some_rows(300, prompts=250)
    rows += rows[:10]  # duplicates, which the shuffle puts into other files
    one = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "one.jsonl", rows)))
    five = prepared_table(recipe(tmp_path, in_five_files(tmp_path / "five", rows)), ON_THE_CLUSTER)
    assert one.folder != five.folder
    assert one.manifest.quarantined == five.manifest.quarantined == {"duplicate_pair": 10}
    assert index_bytes(one) == index_bytes(five)
    assert len(one.parts("train")) == 1
    assert len(five.parts("train")) > 2
    for split in ("train", "eval"):
        everything = np.arange(one.rows(split))
        assert one.read(split, everything).equals(five.read(split, everything))


def test_the_order_is_margin_first_then_a_hash(tmp_path: Path) -> None:
    table = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", some_rows(200))))
    for split in ("train", "eval"):
        index = table.index(split)
        assert len(index) > 5
        assert easiest_first(index.margin, index.pair_id, seed=42).tolist() == list(range(len(index)))
        positions = table.read(split, np.arange(len(index)))["position"].to_pylist()
        assert positions == list(range(len(index)))
    assert table.index("train").margin[0] == 3.0
    assert table.index("train").margin[-1] == 0.0


def test_other_orders_hold_the_same_pairs(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", some_rows(100))
    down = prepared_table(recipe(tmp_path, source)).index("train")
    up = prepared_table(recipe(tmp_path, source, curriculum={"order": "ascending"})).index("train")
    shuffled = prepared_table(recipe(tmp_path, source, curriculum={"order": "shuffled"})).index("train")
    assert up.pair_id == down.pair_id[::-1]
    assert sorted(shuffled.pair_id) == sorted(down.pair_id)
    assert shuffled.pair_id != down.pair_id


def test_every_row_is_kept_or_named(tmp_path: Path) -> None:
    good = some_rows(20)
    bad: list[Row | str] = [
        "{broken",
        {**good[0], "chosen": " "},
        {**good[1], "score_chosen": math.nan},
        {**good[2], "score_chosen": 1.0},
        good[3],
        {**good[4], "rejected": "honey " * 3000},
    ]
    source = write_jsonl(tmp_path / "a.jsonl", [*good, *bad])
    for sizes in (SIZES, ON_THE_CLUSTER):
        settings = recipe(tmp_path, within(source, 0.5), negative_margin="drop")
        settings = settings.model_copy(
            update={
                "output": settings.output.model_copy(
                    update={"storage_path": str(tmp_path / f"out{sizes.driver_bytes}")}
                )
            }
        )
        table = prepared_table(settings, sizes)
        assert quarantined(table.folder) == [
            ("a.jsonl", 20, "corrupt_line"),
            ("a.jsonl", 21, "empty_answer"),
            ("a.jsonl", 22, "nan_score"),
            ("a.jsonl", 23, "negative_margin"),
            ("a.jsonl", 24, "duplicate_pair"),
            ("a.jsonl", 25, "answer_too_long"),
        ]
        assert table.manifest.rows_in == 26
        assert table.manifest.rows_kept == 20 == table.rows("train") + table.rows("eval")
        assert (Path(table.folder) / "margins.png").stat().st_size > 1000


def test_of_contradicting_ratings_the_cautious_one_counts_wherever_it_lies(tmp_path: Path) -> None:
    rows = some_rows(30)
    doubted = {**rows[7], "score_chosen": 5.0}
    first = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", [*rows, doubted])))
    second = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "b.jsonl", [doubted, *rows])))
    assert rows[7]["score_chosen"] > 5
    assert index_bytes(first) == index_bytes(second)


def test_no_prompt_is_trained_and_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = some_rows(200, prompts=50)
    table = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), heldout={"fraction": 0.2}))
    prompts = [
        {tuple(ids) for ids in table.read(split, np.arange(table.rows(split)))["prompt_ids"].to_pylist()}
        for split in ("train", "eval")
    ]
    # the tags of the prompts are unknown words, so equal ids are a stricter test than equal prompts
    assert "of the tokens of the first 64 pairs are unknown to the tokenizer" in capsys.readouterr().err
    assert table.rows("eval") == 40
    assert not prompts[0] & prompts[1]


def test_a_training_pair_with_a_held_out_prompt_is_refused(tmp_path: Path) -> None:
    rows, held = some_rows(40), some_rows(10, seed=9)
    leak = {**held[3], "chosen": "another answer"}
    held_path = write_parquet(tmp_path / "held.parquet", held)
    for number, sizes in enumerate((SIZES, ON_THE_CLUSTER)):
        source = write_jsonl(tmp_path / f"train{number}.jsonl", [*rows, leak])
        settings = recipe(tmp_path, source, heldout={"source": {"path": held_path}})
        table = prepared_table(settings, sizes)
        assert quarantined(table.folder) == [(f"train{number}.jsonl", 40, "prompt_in_heldout")]
        assert (table.rows("train"), table.rows("eval")) == (40, 10)


def test_a_full_held_out_split_is_counted_but_is_no_fault(tmp_path: Path) -> None:
    source, held = (write_jsonl(tmp_path / f"{seed}.jsonl", some_rows(40, seed=seed)) for seed in (1, 2))
    held_out = {"source": within(held, 0.0), "max_pairs": 8}
    settings = recipe(tmp_path, within(source, 0.0), heldout=held_out)
    table = prepared_table(settings)
    assert table.rows("eval") == 8
    assert table.manifest.quarantined == {"heldout_is_full": 32}


def test_nothing_left_and_less_than_a_batch_are_named(tmp_path: Path) -> None:
    rows = [{**row, "chosen": ""} for row in some_rows(5)]
    with pytest.raises(TooFewPairsError, match="no pairs are left"):
        prepared_table(recipe(tmp_path, within(write_jsonl(tmp_path / "a.jsonl", rows), 1.0)))
    with pytest.raises(TooFewPairsError, match="5 pairs are left to train on"):
        prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "b.jsonl", some_rows(5)), global_batch_size=8))
    with pytest.raises(DataError, match=r"c.jsonl is empty: give a file of pairs"):
        prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "c.jsonl", [])))


def test_a_policy_that_stops_the_job_names_the_row_in_one_line(tmp_path: Path) -> None:
    rows = some_rows(10)
    rows[6]["score_chosen"] = 1.0
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    for sizes in (SIZES, ON_THE_CLUSTER):
        with pytest.raises(DataError) as caught:
            prepared_table(recipe(tmp_path, source), sizes)
        assert str(caught.value).startswith(f"{source} row 6: chosen is rated below rejected")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "outputs" / "prepared").glob("*unfinished*"))


def test_a_data_set_saved_by_datasets_is_read_by_split(tmp_path: Path) -> None:
    rows = some_rows(60)
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows), "other": datasets.Dataset.from_list(rows[:9])}
    )
    saved.save_to_disk(tmp_path / "saved")
    from_file = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows)))
    here = prepared_table(recipe(tmp_path, str(tmp_path / "saved")))
    assert index_bytes(here) == index_bytes(from_file)
    other = recipe(tmp_path, {"path": str(tmp_path / "saved"), "split": "other"}, heldout={"fraction": 0})
    assert prepared_table(other, ON_THE_CLUSTER).rows("train") == 9
    with pytest.raises(DataError, match="one of train, other"):
        prepared_table(recipe(tmp_path, {"path": str(tmp_path / "saved"), "split": "test"}))


def test_a_folder_laid_out_like_a_hub_data_set_is_read_by_split_from_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "train-00000-of-00001.parquet", some_rows(50))
    write_parquet(folder / "test-00000-of-00001.parquet", some_rows(12, seed=5))
    settings = recipe(
        tmp_path,
        {"path": str(tmp_path / "set"), "split": "train", "max_quarantined_fraction": 1.0},
        heldout={"source": {"path": str(tmp_path / "set"), "split": "test"}},
    )
    table = prepared_table(settings)
    assert (table.rows("train"), table.rows("eval")) == (50, 12)


def test_rows_of_one_prompt_meet_wherever_they_lie(tmp_path: Path) -> None:
    """Rated single responses: both rows of a prompt, in different files, make one pair."""
    rows = [
        {"prompt": f"honey tag{number}", "response": f"{word} {number}", "helpfulness": score}
        for word, score in (("car", 0.0), ("honey", 2.0))
        for number in range(40)
    ]
    first, second = write_jsonl(tmp_path / "a.jsonl", rows[:40]), write_parquet(tmp_path / "b.parquet", rows[40:])
    together = prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "c.jsonl", rows)))
    apart = prepared_table(recipe(tmp_path, [second, first]), ON_THE_CLUSTER)
    assert together.manifest.rows_in == together.manifest.rows_kept == 40
    assert together.manifest.facts["format"] == ["helpsteer2"]
    assert index_bytes(together) == index_bytes(apart)
    assert set(together.index("train").margin) == {2.0}


def test_margins_as_quantiles_rank_within_each_source(tmp_path: Path) -> None:
    # source a rates in steps of 0.01, source b in steps of 10: as quantiles both run through 0, 0.05, ..., 0.95
    rows = [
        {"prompt": f"honey {name}{n}", "chosen": f"wax {n}", "rejected": "car", "margin": n * step, "source": name}
        for name, step in (("a", 0.01), ("b", 10.0))
        for n in range(20)
    ]
    settings = recipe(
        tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), margin_scale="quantile", heldout={"fraction": 0}
    )
    margins = np.sort(prepared_table(settings).index("train").margin)
    assert np.allclose(margins, np.repeat(np.arange(20) / 20, 2))


def test_a_prepared_table_is_found_again_until_something_changes(tmp_path: Path) -> None:
    rows = some_rows(30)
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    made = prepared_table(recipe(tmp_path, source))
    stamp = (Path(made.folder) / "manifest.json").stat().st_mtime_ns
    assert prepared_table(recipe(tmp_path, source)).folder == made.folder
    assert (Path(made.folder) / "manifest.json").stat().st_mtime_ns == stamp
    assert prepared_table(recipe(tmp_path, source, max_length=400, max_prompt_length=300)).folder != made.folder
    assert prepared_table(recipe(tmp_path, source, curriculum={"threshold": {"value": 2.0}})).folder == made.folder
    write_jsonl(tmp_path / "a.jsonl", rows[:-1])
    assert prepared_table(recipe(tmp_path, source)).rows("train") < made.rows("train") + made.rows("eval")


def test_mistaken_sources_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file there that ends in \.parquet, "):
        prepared_table(recipe(tmp_path, str(tmp_path / "absent.jsonl")))
    with pytest.raises(FormatError, match="columns answer, question fit no format"):
        prepared_table(recipe(tmp_path, write_jsonl(tmp_path / "a.jsonl", [{"question": "a", "answer": "b"}])))
