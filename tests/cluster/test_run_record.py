"""A folder belongs to one training and one driver, and what earlier versions wrote in it is still read."""

from __future__ import annotations

import ast
import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from mixdpo_ray.cluster.run_record import RunRecord, differences, identity_of, run_folder
from mixdpo_ray.errors import RunConflictError, StorageError
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe, fingerprint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n"
        f"output: {{storage_path: {tmp_path}/out}}\n"
    )
    return path


def recipe(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), overrides)


def record(path: Path) -> RunRecord:
    return RunRecord(run_folder(recipe(path)))


def claim(path: Path, digest: str, *overrides: str) -> str:
    asked = recipe(path, *overrides)
    return record(path).claim(asked, identity_of(asked, digest))


def test_the_same_training_may_claim_its_folder_again(small: Path) -> None:
    first = claim(small, "abc")
    assert claim(small, "abc", "cluster.num_workers=4") == first == fingerprint(identity_of(recipe(small), "abc"))


def test_what_an_earlier_version_began_goes_on_with_padded_rows_and_new_folders_with_packed_ones(small: Path) -> None:
    """Earlier versions recorded no packing."""
    assert record(small).as_begun(recipe(small)).model.packing == "auto"
    claim(small, "abc", "model.packing=off")
    file = Path(record(small).recipe_file)
    content = json.loads(file.read_text())
    assert content["recipe"]["model"].pop("packing") is False
    assert "packing" not in content["identity"]["model"]
    file.write_text(json.dumps(content))
    trained(small)
    begun = record(small).as_begun(recipe(small))
    assert begun.model.packing is False
    record(small).claim(begun, identity_of(begun, "abc"))
    assert record(small).as_begun(recipe(small, "model.packing=on")).model.packing is True
    assert record(small).as_begun(recipe(small, "output.fresh=true")).model.packing == "auto"
    with pytest.raises(RunConflictError, match=r"model\.packing was None, is True"):
        claim(small, "abc", "model.packing=on")


def test_what_began_packed_goes_on_packed(small: Path) -> None:
    claim(small, "abc", "model.packing=on")
    assert record(small).as_begun(recipe(small)).model.packing is True


def test_another_training_is_refused_with_the_difference_shown(small: Path) -> None:
    claim(small, "abc")
    trained(small)
    with pytest.raises(RunConflictError, match=r"objective\.beta was 0\.1, is 0\.3.*output\.fresh=true"):
        claim(small, "abc", "objective.beta=0.3")
    with pytest.raises(RunConflictError, match=r"prepared was abc, is def"):
        claim(small, "def")
    found = record(small).recorded()
    assert found is not None
    assert found.prepared == ["abc"], "a refused claim leaves the record as it was"


def trained(path: Path, line: str = '{"step": 0}') -> None:
    (Path(record(path).folder) / "metrics.jsonl").write_text(f"{line}\n")


def test_a_name_under_which_no_step_was_trained_is_free_for_the_corrected_recipe(small: Path) -> None:
    claim(small, "abc", "objective.beta=1e30")
    trained(small, '{"kind": "eval", "step": 0}')
    record(small).write_failure("not finite")
    assert claim(small, "abc") == fingerprint(identity_of(recipe(small), "abc"))
    assert record(small).failure() is None


@pytest.mark.parametrize("left", ["checkpoints/step-4/COMMITTED", "summary.json"])
def test_a_name_under_which_anything_was_trained_is_not_free(small: Path, left: str) -> None:
    claim(small, "abc")
    file = Path(record(small).folder) / left
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    with pytest.raises(RunConflictError):
        claim(small, "abc", "objective.beta=0.3")


def test_differences_name_settings_by_their_dotted_names() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a.c was 2, is 3",
        "d was None, is 4",
    ]


def test_a_record_says_what_was_asked_for_and_what_is_in_use(small: Path) -> None:
    assert record(small).recorded() is None
    claim(small, "abc")
    found = record(small).recorded()
    assert found is not None
    assert Recipe.model_validate(found.recipe) == recipe(small)
    assert (found.identity, found.prepared) == (identity_of(recipe(small), "abc"), ["abc"])
    assert [model["path"] for model in found.models] == ["some/model"]


def test_a_comparison_names_its_tables_and_the_models_of_its_arms(small: Path) -> None:
    record(small).write_recipe(recipe(small), {"prepared": ["a", "b"]}, [{"path": "one"}, {"path": "two"}])
    found = record(small).recorded()
    assert found is not None
    assert (found.prepared, found.models) == (["a", "b"], [{"path": "one"}, {"path": "two"}])


def test_the_files_are_those_of_earlier_versions(small: Path) -> None:
    folder = Path(record(small).folder)
    assert folder == small.parent / "out" / "runs" / "small"
    claim(small, "abc")
    record(small).write_summary({"steps": 8})
    record(small).write_failure("of no\nuse")
    with record(small).locked():
        assert (folder.parent / ".small.driver.lock").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["failure.txt", "recipe.json", "summary.json"]
    content = {"recipe": recipe(small).to_dict(), "identity": identity_of(recipe(small), "abc")}
    assert json.loads((folder / "recipe.json").read_text()) == content
    assert json.loads((folder / "summary.json").read_text()) == {"steps": 8}
    assert (folder / "failure.txt").read_text() == "of no use"


def test_a_run_is_finished_when_its_summary_has_every_step(small: Path) -> None:
    assert record(small).summary() is None
    assert record(small).finished(8) is None
    record(small).write_summary({"steps": 8})
    assert record(small).finished(8) == {"steps": 8}
    assert record(small).finished(9) is None


def test_a_failure_is_kept_in_one_line(small: Path) -> None:
    assert record(small).failure() is None
    assert record(small).write_failure("step 3:\n  the loss\tis nan") == "step 3: the loss is nan"
    assert record(small).failure() == "step 3: the loss is nan"


def test_a_damaged_record_is_said_to_be_one(small: Path) -> None:
    folder = Path(record(small).folder)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"steps": ')
    with pytest.raises(StorageError, match=r"summary\.json is damaged: .*; remove it and repeat the command"):
        record(small).finished(8)
    (folder / "recipe.json").write_text('{"model": 1}')
    with pytest.raises(StorageError, match=r"recipe\.json is no record of a run: it has no 'recipe'; remove it"):
        record(small).recorded()


def test_a_second_driver_is_kept_out_until_the_first_one_lets_go(small: Path) -> None:
    refused = pytest.raises(
        RunConflictError, match=r"small is in use by process \d+ on .*: wait for it, or choose another output\.name"
    )
    with record(small).locked(), refused, record(small).locked():
        pass
    with record(small).locked():
        pass


def test_a_killed_driver_lets_go(small: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    holds = spawn.Event()
    process = spawn.Process(target=_hold, args=(small, holds))
    process.start()
    assert holds.wait(60)
    with pytest.raises(RunConflictError), record(small).locked():
        pass
    process.kill()
    process.join()
    with record(small).locked():
        pass


def _hold(path: Path, holds: Event) -> None:
    with record(path).locked():
        holds.set()
        multiprocessing.Event().wait(60)


def texts(path: Path) -> Iterator[str]:
    """The strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = {id(node.body[0].value) for node in ast.walk(tree)
             if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in first:
            yield node.value


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("recipe.json", {"preparation/table_key.py"}),  # of a prepared table: another file
        ("summary.json", set[str]()),
        ("failure.txt", set[str]()),
        ("driver.lock", set[str]()),
    ],
)
def test_the_name_of_a_file_of_a_record_stands_in_one_module(name: str, others: set[str]) -> None:
    files = [*(ROOT / "mixdpo_ray").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if any(name in text for text in texts(path))}
    assert found == {f"mixdpo_ray/{inside}" for inside in {"cluster/run_record.py", *others}}
