"""What is used stays, what is locked stays, and nothing goes without being asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mixdpo_ray.cluster.folder_lock import FolderLock
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.rating.rated_table import AnswerNumbers
from mixdpo_ray.runs.clean import survey_storage
from mixdpo_ray.runs.storage_items import Item, describe_items, remove_unused
from mixdpo_ray.storage import may_be_one
from mixdpo_ray.tables.answer_table import AnswerTable
from mixdpo_ray.tables.prepared_table import Manifest, SplitFacts, commit
from tests.runs.trainings import job

MODEL = {"path": "a-model", "revision": None, "reference": None}


def prepared_table(storage: Path, name: str, digest: str, **facts: str) -> Path:
    folder = storage / "prepared" / name
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(b"x" * 5000)
    splits = {split: SplitFacts(rows=0) for split in ("train", "eval")}
    counts = {"splits": splits, "rows_in": 0, "rows_kept": 0}
    commit(
        str(folder), Manifest.model_validate({"fingerprint": name, "content_digest": digest, "facts": facts, **counts})
    )
    return folder


def reference_table(storage: Path, name: str, model: Mapping[str, object]) -> Path:
    folder = storage / "reference" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": name, "facts": {"model": model}}))
    return folder


def run(storage: Path, name: str, digest: str, finished: bool = False) -> Path:
    folder = storage / "runs" / name
    for step, mark in (("step-5", True), ("step-10", False)):
        checkpoint = folder / "checkpoints" / step
        checkpoint.mkdir(parents=True)
        (checkpoint / "shard").write_bytes(b"y" * 2000)
        if mark:
            (checkpoint / "COMMITTED").touch()
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"model": MODEL}, "identity": {"prepared": digest}}))
    if finished:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        (folder / "summary.json").write_text("{}")
    return folder


def unused(items: list[Item], storage: Path) -> set[str]:
    return {str(Path(item.path).relative_to(storage)) for item in items if item.unused}


def test_tables_that_a_run_uses_stay(tmp_path: Path) -> None:
    prepared_table(tmp_path, "used", "d1")
    prepared_table(tmp_path, "spare", "d2")
    reference_table(tmp_path, "used", MODEL)
    reference_table(tmp_path, "spare", {**MODEL, "path": "another"})
    run(tmp_path, "mine", "d1")
    items = survey_storage(str(tmp_path))
    assert unused(items, tmp_path) == {"prepared/spare", "reference/spare", "runs/mine/checkpoints/step-10"}
    remove_unused(items)
    assert (tmp_path / "prepared" / "used" / "manifest.json").exists()
    assert (tmp_path / "reference" / "used").exists()
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "step-5").exists()
    assert unused(survey_storage(str(tmp_path)), tmp_path) == set()


def test_a_reference_table_is_used_by_a_run_that_writes_the_same_folder_in_another_way(tmp_path: Path) -> None:
    """The run that made it is gone; another, unfinished one reads it by a relative path."""
    reference_table(tmp_path, "used", {**MODEL, "path": "/data/models/a-model"})
    reference_table(tmp_path, "spare", {**MODEL, "path": "/data/models/not-a-model"})
    folder = run(tmp_path, "mine", "d1")
    record = {"recipe": {"model": {**MODEL, "path": "../a-model"}}, "identity": {"prepared": "d1"}}
    (folder / "recipe.json").write_text(json.dumps(record))
    assert "reference/used" not in unused(survey_storage(str(tmp_path)), tmp_path)
    assert "reference/spare" in unused(survey_storage(str(tmp_path)), tmp_path)


def test_a_table_of_another_file_with_the_same_rows_is_not_used_by_the_run(tmp_path: Path) -> None:
    for name, path in (("read", "pairs/a.jsonl"), ("spare", "pairs/b.jsonl")):
        (prepared_table(tmp_path, name, "d1") / "recipe.json").write_text(
            json.dumps({"data": {"source": {"path": path}}})
        )
    folder = run(tmp_path, "mine", "d1")
    record = {
        "recipe": {"model": MODEL, "data": {"source": {"path": "/here/pairs/a.jsonl"}}},
        "identity": {"prepared": "d1"},
    }
    (folder / "recipe.json").write_text(json.dumps(record))
    assert "prepared/spare" in unused(survey_storage(str(tmp_path)), tmp_path)
    assert "prepared/read" not in unused(survey_storage(str(tmp_path)), tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("../tiny", "/a/tiny", True),
        ("./tiny/", "tiny", True),
        ("/a/b/../tiny", "/a/tiny", True),
        (".", "/a/tiny", True),
        ("..", "/a/tiny", True),
        ("/a/tiny", "/b/tiny", False),
        ("tiny", "/a/untiny", False),
        ("s3://a/tiny", "tiny", False),
    ],
)
def test_paths_are_told_apart_as_far_as_they_can_be(one: str, other: str, may: bool) -> None:
    assert may_be_one(one, other) == may_be_one(other, one) == may


def test_what_a_used_table_was_derived_from_stays(tmp_path: Path) -> None:
    """Another metric would otherwise tokenise everything again."""
    prepared_table(tmp_path, "base", "d1")
    prepared_table(tmp_path, "derived", "d2", base="base")
    prepared_table(tmp_path, "spare", "d3", base="base")
    run(tmp_path, "mine", "d2")
    items = survey_storage(str(tmp_path))
    assert unused(items, tmp_path) == {"prepared/spare", "runs/mine/checkpoints/step-10"}
    assert [item.used_by for item in items if item.path.endswith("/base")] == [("run mine",)]


def test_tables_that_a_study_uses_stay(tmp_path: Path) -> None:
    prepared_table(tmp_path, "used", "d1")
    prepared_table(tmp_path, "spare", "d2")
    record = {"recipe": {"model": MODEL}, "identity": {"prepared": ["d1", "d3"]}}
    (tmp_path / "studies" / "wide").mkdir(parents=True)
    (tmp_path / "studies" / "wide" / "recipe.json").write_text(json.dumps(record))
    items = survey_storage(str(tmp_path))
    assert unused(items, tmp_path) == {"prepared/spare"}
    assert [item.used_by for item in items if item.path.endswith("/used")] == [("study wide",)]


def test_scores_stay_while_a_recipe_names_their_metric(tmp_path: Path) -> None:
    for name, metric in (("a", "ches"), ("b", "dcrm"), ("c", "bees")):
        folder = tmp_path / "scores" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"fingerprint": name, "facts": {"metric": metric}}))
        FolderLock(str(folder)).path.touch()
    (tmp_path / "scores" / "correlations-1.png").write_bytes(b"p")
    reference_table(tmp_path, "of-a-metric", {**MODEL, "path": "judge"})
    record = json.loads((run(tmp_path, "mine", "d1") / "recipe.json").read_text())
    record["recipe"] |= {"curriculum": {"difficulty": "ches"}, "metrics": {"dcrm": {"model": "judge"}}}
    (tmp_path / "runs" / "mine" / "recipe.json").write_text(json.dumps(record))
    items = [item for item in survey_storage(str(tmp_path)) if "checkpoints" not in item.path]
    assert unused(items, tmp_path) == {"scores/c", "scores/correlations-1.png"}


def test_tables_that_a_comparison_uses_stay_those_of_all_its_models(tmp_path: Path) -> None:
    prepared_table(tmp_path, "used", "d1")
    reference_table(tmp_path, "used", {**MODEL, "path": "worlds/seed-1/base"})
    reference_table(tmp_path, "spare", {**MODEL, "path": "worlds/seed-2/base"})
    models = [{**MODEL, "path": f"worlds/seed-{seed}/base"} for seed in (0, 1)]
    record = {
        "recipe": {"model": {**MODEL, "path": "<world>/base"}},
        "identity": {"prepared": ["d1"]},
        "models": models,
    }
    folder = tmp_path / "comparisons" / "arms"
    (folder / "ray").mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(record))
    items = survey_storage(str(tmp_path))
    assert unused(items, tmp_path) == {"reference/spare", "comparisons/arms/ray"}
    assert {user for item in items for user in item.used_by} == {"comparison arms"}


def test_checkpoints_of_a_finished_run_may_go_but_its_model_stays(tmp_path: Path) -> None:
    folder = run(tmp_path, "done", "d1", finished=True)
    remove_unused(survey_storage(str(tmp_path)))
    assert not list((folder / "checkpoints").iterdir())
    assert (folder / "model" / "config.json").exists()


def test_what_was_sampled_is_listed_and_stays_and_its_leftovers_go(tmp_path: Path) -> None:
    samples, exported = tmp_path / "samples", run(tmp_path, "mine", "d1", finished=True) / "exported"
    AnswerTable.create(str(samples / "abc"), "abc", {"model": "a-model"})
    FolderLock(str(samples / "abc")).path.touch()
    AnswerNumbers.create(str(tmp_path / "rated" / "def"), "def", {"model": "a-judge"})
    for name in ("mine.jsonl", "mine.quarantine.jsonl", "mine.png"):
        (tmp_path / "rated" / name).write_text("{}\n")
    for name in ("mine.jsonl", "mine.quarantine.jsonl", "mine.unanswerable.quarantine.jsonl"):
        (samples / name).write_text("{}\n")
    for name in ("judged/m-1", "evaluations/mine", "tasks/0123", "iterations/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "some.json").write_text("{}\n")
    for name in ("step-5", ".unfinished-step-10"):
        (exported / name).mkdir(parents=True)
        (exported / name / "config.json").write_text("{}")
    items = [item for item in survey_storage(str(tmp_path)) if "checkpoints" not in item.path]
    leftovers = {
        "samples/mine.quarantine.jsonl",
        "samples/mine.unanswerable.quarantine.jsonl",
        "rated/mine.quarantine.jsonl",
        "runs/mine/exported/.unfinished-step-10",
    }
    assert unused(items, tmp_path) == leftovers
    kept = {str(Path(item.path).relative_to(tmp_path)): item.about for item in items if not item.unused}
    assert kept == {
        "samples/abc": "answers of a-model",
        "samples/mine.jsonl": "answers written out",
        "rated/def": "ratings of a-judge",
        "rated/mine.jsonl": "ratings written out",
        "rated/mine.png": "ratings written out",
        "judged/m-1": "what a judge replied",
        "evaluations/mine": "evaluation",
        "tasks/0123": "figures of a model on downstream tasks",
        "iterations/mine": "rounds, with their models",
        "runs/mine/exported/step-5": "model of a checkpoint",
    }
    with FolderLock(str(exported / "step-10")).or_wait():
        assert len(remove_unused(items)) == 3


def test_half_written_leftovers_may_go_unless_their_lock_is_held(tmp_path: Path) -> None:
    leftovers = [
        tmp_path / "prepared" / ".unfinished-abc",
        tmp_path / "prepared" / "def",
        tmp_path / "reference" / "ghi",
        tmp_path / "scoring" / "queue-mno",
    ]
    for folder in leftovers:
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"x" * 100)
    (tmp_path / "prepared" / "jkl.quarantine.jsonl").write_text("{}\n")
    with FolderLock(str(tmp_path / "prepared" / "abc")).or_wait():
        items = survey_storage(str(tmp_path))
        assert len(remove_unused(items)) == 4
    assert [folder.exists() for folder in leftovers] == [True, False, False, False]
    assert len(remove_unused(survey_storage(str(tmp_path)))) == 1
    assert not leftovers[0].exists()


def test_checkpoints_of_a_run_that_is_going_on_are_left_alone(tmp_path: Path) -> None:
    folder = run(tmp_path, "busy", "d1")
    with RunRecord(str(folder)).locked():
        assert remove_unused(survey_storage(str(tmp_path))) == []
    assert (folder / "checkpoints" / "step-10").exists()


def test_sizes_are_told_and_summed(tmp_path: Path) -> None:
    prepared_table(tmp_path, "spare", "d2")
    text = describe_items([Item("/x/big", 2_500_000, "prepared table"), Item("/x/kept", 900, "checkpoint", ("run a",))])
    assert text.splitlines() == [
        "     900 B  /x/kept  checkpoint; used by run a",
        "   2.4 MiB  /x/big  prepared table; used by nothing",
        "used by nothing: 1 folder, 2.4 MiB",
    ]
    assert describe_items(survey_storage(str(tmp_path / "absent"))) == "nothing is there"


def test_of_many_users_the_first_are_named_and_the_others_counted() -> None:
    users = tuple(f"run {name}" for name in "abcdefg")
    assert describe_items([Item("/x", 1, "table", users)]).splitlines()[0].endswith("run a, run b, run c and 4 more")
    assert describe_items([Item("/x", 1, "table", users[:4])]).splitlines()[0].endswith("run c, run d")


def test_a_picture_is_counted_as_a_file(tmp_path: Path) -> None:
    prepared_table(tmp_path, "spare", "d2")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "correlations-1.png").write_bytes(b"p")
    last = describe_items(survey_storage(str(tmp_path))).splitlines()[-1]
    assert last.startswith("used by nothing: 1 folder and 1 file, ")


def test_its_help_shows_no_setting_that_it_does_not_read() -> None:
    status, said, _ = job("clean", "--help")
    assert status == 0
    assert said.count(" = ") == 1
    assert "output.storage_path = outputs" in said


@pytest.mark.parametrize("arguments", [[], ["--remove"]])
def test_the_job_lists_and_removes_only_on_request(tmp_path: Path, arguments: list[str]) -> None:
    folder = prepared_table(tmp_path / "out", "spare", "d2")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: m}}\ndata: {{source: {{path: p}}}}\noutput: {{storage_path: {tmp_path / 'out'}}}\n"
    )
    status, said, _ = job("clean", str(recipe), *arguments)
    assert status == 0
    assert f"{folder}  prepared table; used by nothing" in said
    assert folder.exists() == (not arguments)
    assert ("removed 1" in said) == bool(arguments)
    assert ("; --remove deletes them" in said) != bool(arguments)


def test_a_checkpoint_that_has_still_to_be_judged_stays(tmp_path: Path) -> None:
    folder = run(tmp_path, "mine", "d1", finished=True)
    asked = {"model": MODEL, "train": {"evaluation": {"judge": {"every_steps": 5}}}}
    (folder / "recipe.json").write_text(json.dumps({"recipe": asked, "identity": {"prepared": "d1"}}))
    assert "runs/mine/checkpoints/step-5" not in unused(survey_storage(str(tmp_path)), tmp_path)
